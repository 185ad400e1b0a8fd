/* The least that a forwarder inside the kernel can be: a tcx program at each end
 * that looks an established flow up in a hash table, rewrites the frame where it
 * is, and redirects it. It knows one pod and one peer. */
#include "../../xdpgen/bpf/helpers.h"

enum { BPF_MAP_TYPE_LRU_HASH = 9 };
enum { TCX_NEXT = -1, TCX_DROP = 2 };
enum { ETH_IPV4 = 0x0800, PROTO_UDP = 17, OVERHEAD = 50 };

/* include/uapi/linux/bpf.h, bpf_skb_adjust_room */
enum { BPF_ADJ_ROOM_MAC = 1 };
#define ENCAP_L3_IPV4 (1ULL << 1)
#define ENCAP_L4_UDP (1ULL << 4)
#define ENCAP_L2(len) (((__u64)(len) & 0xff) << 56)

struct __sk_buff {
	__u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	__u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end;
};

static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u32 (*bpf_get_hash_recalc)(struct __sk_buff *skb) = (void *)34;
static long (*bpf_skb_adjust_room)(struct __sk_buff *skb, int diff, __u32 mode, __u64 flags) = (void *)50;

const volatile __u32 uplink = 0, pod = 0; /* where frames leave */
const volatile __u16 port = 0;            /* VXLAN's, in network byte order */
const volatile __u8 outer[64];            /* Ethernet to inner Ethernet, without what varies */
const volatile __u32 outer_sum = 0;       /* of its IPv4 header */
const volatile __u8 macs[12];             /* of frames to the pod */

struct key {
	__u32 src, dst;
	__u32 ports;
	__u32 protocol;
};

struct flow {
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

struct ip {
	__u8 version_ihl, tos;
	__u16 total, id, frag;
	__u8 ttl, protocol;
	__u16 checksum;
	__u16 src[2], dst[2];
	__u16 ports[2];
};

/* track counts a packet of a flow, which is made with the first one. */
static __always_inline void track(struct ip *ip)
{
	struct key k = {
		.src = (__u32)ip->src[0] << 16 | ip->src[1],
		.dst = (__u32)ip->dst[0] << 16 | ip->dst[1],
		.ports = (__u32)ip->ports[0] << 16 | ip->ports[1],
		.protocol = ip->protocol,
	};
	struct flow *f = bpf_map_lookup_elem(&flows, &k);

	if (f) {
		f->packets++;
		return;
	}
	struct flow first = { 1 };
	bpf_map_update_elem(&flows, &k, &first, 0);
}

/* age decrements the hop count (RFC 1624 for its checksum). */
static __always_inline void age(struct ip *ip)
{
	__u32 sum = (__u32)ip->checksum + bpf_htons(0x0100);

	ip->checksum = (__u16)(sum + (sum >= 0xffff));
	ip->ttl--;
}

SEC("tcx/ingress")
int push(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;
	struct ip *ip = (void *)(data + 14);

	if (!bound(skb, 14 + sizeof(*ip)) || *(__u16 *)(data + 12) != bpf_htons(ETH_IPV4) || ip->version_ihl != 0x45 || ip->ttl < 2)
		return TCX_NEXT;
	track(ip);
	age(ip);
	__u32 hash = bpf_get_hash_recalc(skb);
	__u32 inner = skb->len; /* with the Ethernet header, which the tunnel carries, too */
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC, ENCAP_L3_IPV4 | ENCAP_L4_UDP | ENCAP_L2(22)))
		return TCX_DROP;
	data = (void *)(long)skb->data;
	if (!bound(skb, 64))
		return TCX_DROP;
#pragma unroll
	for (int i = 0; i < 64; i++)
		data[i] = outer[i];
	__u16 total = inner + 36;
	__u32 sum = outer_sum + total;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*(__u16 *)(data + 16) = bpf_htons(total);
	*(__u16 *)(data + 24) = bpf_htons((__u16)~sum);
	*(__u16 *)(data + 34) = bpf_htons((__u16)(0xc000 | (hash & 0x3fff)));
	*(__u16 *)(data + 38) = bpf_htons((__u16)(total - 20));
	return bpf_redirect(uplink, 0);
}

SEC("tcx/ingress")
int pop(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;
	struct ip *ip = (void *)(data + 14);

	if (!bound(skb, OVERHEAD + 14 + sizeof(*ip)) || *(__u16 *)(data + 12) != bpf_htons(ETH_IPV4) || ip->version_ihl != 0x45 ||
	    ip->protocol != PROTO_UDP || ip->ports[1] != port)
		return TCX_NEXT;
	ip = (void *)(data + OVERHEAD + 14);
	if (ip->version_ihl != 0x45 || ip->ttl < 2)
		return TCX_DROP;
	track(ip);
	age(ip);
	if (bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC, 0))
		return TCX_DROP;
	data = (void *)(long)skb->data;
	if (!bound(skb, 14))
		return TCX_DROP;
#pragma unroll
	for (int i = 0; i < 12; i++)
		data[i] = macs[i];
	return bpf_redirect(pod, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
