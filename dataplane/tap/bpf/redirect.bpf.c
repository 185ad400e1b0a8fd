/* The program on an Uplink's TAP: what Culvert writes into the TAP leaves by the
 * uplink, as if the kernel's own stack had sent it. The frame keeps its
 * segmentation and checksum offloads; whoever takes it last, the kernel in front
 * of the driver or the NIC, cuts it.
 *
 * The few declarations are of include/uapi/linux/bpf.h: a build needs clang and
 * nothing else.
 */
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))

struct __sk_buff;

static long (*bpf_redirect_neigh)(__u32 ifindex, void *params, int plen, __u64 flags) = (void *)152;

/* The uplink's index: the loader sets it. */
const volatile __u32 uplink = 0;

/* bpf_redirect would do, and leave the frame's Ethernet header alone. But it
 * marks the frame as redirected, and where the wire is a veth the mark arrives
 * with the frame: generic XDP at the far end passes over such frames
 * (net/core/dev.c, netif_receive_generic_xdp). bpf_redirect_neigh does not
 * (net/core/filter.c, bpf_out_neigh_v4). It looks route and neighbour up as for
 * a frame of the kernel's own, which is where Culvert has them from too.
 */
SEC("tcx/ingress")
int to_uplink(struct __sk_buff *skb)
{
	return bpf_redirect_neigh(uplink, (void *)0, 0, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
