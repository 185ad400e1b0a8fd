/* The generator: every run of the program is one frame. The kernel runs it in
 * batches over recycled pages (BPF_PROG_TEST_RUN, BPF_F_TEST_XDP_LIVE_FRAMES),
 * so the program writes the frame's headers anew each time: whoever had the
 * page before may have changed them. Then it redirects the frame into a device
 * of the caller's network namespace.
 *
 * The settings are constants when the program is verified: what they exclude
 * is removed from the program.
 */
#include "helpers.h"

enum { WORDS = 16 }; /* 128 bytes: all headers of a VXLAN frame */

const volatile __u32 out_ifindex = 0;      /* where the frames go */
const volatile __u32 flows = 1;            /* number of 5-tuples, used in turn */
const volatile __u32 frame_words = 8;      /* 64-bit words of the template to write */
const volatile __u32 udp_offset = 34;      /* of the UDP header whose ports tell flows apart */
const volatile __u32 udp_sum = 0;          /* its checksum's sum without the ports */
const volatile __u32 outer = 0;            /* nonzero: a tunnel's UDP header at 34 gets a port of its own */
const volatile __u32 first_port = 1024;    /* source port of flow 0 */
const volatile __u32 destination_port = 5000;
const volatile __u64 frame_template[WORDS];

struct udp {
	__u16 src;
	__u16 dst;
	__u16 len;
	__u16 checksum;
};

__u64 generated = 0; /* frames made; the generator runs on one thread */
__u32 flow = 0;      /* the next frame's */
__u32 stopped = 0;   /* nonzero: what is left of the run makes no frames */

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	__u64 *word = (void *)data;

	if (*(volatile __u32 *)&stopped || !bound(ctx, 8 * frame_words))
		return XDP_DROP;
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		if (i < frame_words)
			word[i] = frame_template[i];

	__u32 f = flow;
	flow = f + 1 < flows ? f + 1 : 0;
	generated++;

	__u16 src = first_port + (f & 0x7fff), dst = destination_port + (f >> 15);
	if (udp_offset > 128 - sizeof(struct udp) || !bound(ctx, udp_offset + sizeof(struct udp)))
		return XDP_DROP;
	struct udp *u = (void *)(data + udp_offset);
	u->src = bpf_htons(src);
	u->dst = bpf_htons(dst);
	__u32 sum = udp_sum + src + dst;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	__u16 checksum = ~sum;
	u->checksum = checksum ? bpf_htons(checksum) : 0xffff;
	if (outer) {
		u = (void *)(data + 34);
		u->src = bpf_htons((__u16)(0xc000 + (f & 0x3fff)));
	}
	return bpf_redirect(out_ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
