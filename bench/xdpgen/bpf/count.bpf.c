/* The sink: counts IPv4 frames, or only those of one protocol, or only UDP
 * datagrams to one port, keeps the first few of them for inspection, and drops
 * all frames. It may be attached to any number of devices.
 */
#include "helpers.h"

enum { SAMPLES = 256, SAMPLE_BYTES = 128 };
enum { ETH_IPV4 = 0x0800 };

const volatile __u32 ip_protocol = 0; /* 0: any IPv4 packet counts */
const volatile __u32 udp_port = 0;    /* 0: any; else the protocol is UDP */

__u32 sampled = 0; /* samples begun, by all processors */

struct counters {
	__u64 packets;
	__u64 bytes;
	__u64 other; /* frames that are not what is counted */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

struct sample {
	__u32 len;  /* of the frame */
	__u32 kept; /* bytes of it in data */
	__u32 ifindex; /* where it arrived */
	__u8 data[SAMPLE_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SAMPLES);
	__type(key, __u32);
	__type(value, struct sample);
} samples SEC(".maps");

struct headers {
	__u8 ethernet[12];
	__u16 type;
	__u8 version_ihl;
	__u8 tos;
	__u16 total, id, frag;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u16 src[2], dst[2]; /* an __u32 would be aligned elsewhere */
	__u16 sport, dport; /* of a header without options, as tunnels send it */
};

static __always_inline int counted(struct xdp_md *ctx)
{
	struct headers *h = (void *)(long)ctx->data;

	if (!bound(ctx, sizeof(*h)) || h->type != bpf_htons(ETH_IPV4))
		return 0;
	if (ip_protocol && h->protocol != (__u8)ip_protocol)
		return 0;
	return !udp_port || (h->version_ihl == 0x45 && h->dport == bpf_htons((__u16)udp_port));
}

static __always_inline void keep(struct xdp_md *ctx, __u64 len)
{
	__u32 index = __sync_fetch_and_add(&sampled, 1);
	struct sample *s = bpf_map_lookup_elem(&samples, &index);
	__u64 n = len;

	asm volatile("" : "+r"(n)); /* or clang forgets the bounds that the verifier needs to see */
	if (n > SAMPLE_BYTES)
		n = SAMPLE_BYTES;
	if (!s || n < sizeof(struct headers) || bpf_xdp_load_bytes(ctx, 0, s->data, n))
		return;
	s->ifindex = ctx->ingress_ifindex;
	s->len = len;
	s->kept = n;
}

/* xdp.frags: a device whose peer has a large MTU takes no other program. */
SEC("xdp.frags")
int count(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 len = bpf_xdp_get_buff_len(ctx);
	struct counters *c = bpf_map_lookup_elem(&counts, &zero);

	if (!c)
		return XDP_DROP;
	if (!counted(ctx)) {
		c->other++;
		return XDP_DROP;
	}
	if (*(volatile __u32 *)&sampled < SAMPLES)
		keep(ctx, len);
	c->packets++;
	c->bytes += len;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
