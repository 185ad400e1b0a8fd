/* The generator: every run of the program is one frame, or none if none is due.
 * The kernel runs it in batches over recycled pages (BPF_PROG_TEST_RUN,
 * BPF_F_TEST_XDP_LIVE_FRAMES), so the program writes the frame's headers anew
 * each time: whoever had the page before may have changed them. Then it
 * redirects the frame into a device of the caller's network namespace.
 *
 * The settings are constants when the program is verified: what they exclude
 * is removed from the program. What the frames are and in which order, package
 * load says: Plan.Put and Stream.Next do the same in Go.
 */
#include "helpers.h"

enum { WORDS = 16 }; /* 128 bytes: all headers of a VXLAN frame */
enum { HEADERS = 8 * WORDS, SIZES = 64 };
enum { ETHERNET = 14, IPV4 = 20 };
enum { TUNNEL_IP = ETHERNET, TUNNEL_UDP = ETHERNET + IPV4 };
enum { NO_TUNNEL, VXLAN, IPIP };
enum { NANOS_SHIFT = 20 }; /* times of the pace are in 2^-20 ns */
enum { BEHIND = 64 };      /* intervals that are made up for after a delay */

const volatile __u32 device = 0;       /* where the frames go, if there is one out */
const volatile __u32 flows = 1;        /* number of 5-tuples at the same time */
const volatile __u32 outs = 1;         /* entries of the map out */
const volatile __u32 destinations = 1; /* ... and of the map destination */
const volatile __u32 draws = 0;        /* ... and of the map draw; 0: flows in turn */
const volatile __u32 every = 0;        /* one frame of so many is of a new flow */
const volatile __u64 interval = 0;     /* between frames; 0: as fast as it goes */
const volatile __u64 max_frames = 0;
const volatile __u32 sizes = 1;           /* entries of size in use */
const volatile __u16 size[SIZES];         /* lengths of frames */
const volatile __u32 largest = 0;         /* of them: what every run begins with */
const volatile __u32 frame_words = 8;     /* 64-bit words of the template to write */
const volatile __u64 frame_template[WORDS];
const volatile __u32 tunnel = NO_TUNNEL;
const volatile __u32 ip_offset = ETHERNET;  /* of the flow's IPv4 header */
const volatile __u32 udp_offset = ETHERNET + IPV4; /* ... and its UDP header */
/* Sums of what checksums cover and does not vary. */
const volatile __u32 ip_sum = 0, udp_sum = 0, tunnel_sum = 0;
const volatile __u32 first_port = 0, destination_port = 0, port_bits = 0, tunnel_port = 0, tunnel_ports = 1;

struct out {
	__u32 ifindex;
	__u16 mac[3];
	__u16 addr[2];
	__u16 peer[2]; /* the tunnel's source */
	__u16 sum;     /* of addr, in host byte order */
	__u16 peer_sum;
	__u16 unused;
};

struct destination {
	__u16 addr[2];
	__u16 sum;
	__u16 unused;
};

/* Their numbers of entries are set with the constants. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct out);
} out SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct destination);
} destination SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} draw SEC(".maps");

struct ipv4 {
	__u16 version_tos, len, id, frag, ttl_protocol, checksum;
	__u16 src[2], dst[2];
};

struct udp {
	__u16 src, dst, len, checksum;
};

__u64 generated = 0; /* frames made; the generator runs on one thread */
__u32 stopped = 0;   /* nonzero: what is left of the run makes no frames */

/* What load.Stream has, too. */
__u32 turn = 0, next_size = 0, since = 0, base = 0, replaced = 0;

__u64 start = 0; /* of the pace, in nanoseconds */
__u64 due = 0;   /* the next frame, after start */

/* A frame's time has come. After a delay no more than a few are sent at once:
 * a burst would fill rings that the pace does not. */
static __always_inline int is_due(void)
{
	__u64 now = bpf_ktime_get_ns();

	if (!start)
		start = now;
	now = (now - start) << NANOS_SHIFT;
	if (now < due)
		return 0;
	if (now - due > BEHIND * interval)
		due = now - BEHIND * interval;
	due += interval;
	return 1;
}

static __always_inline __u32 next_flow(void)
{
	__u32 place, period = flows;

	if (every) {
		since++;
		if (since == every) {
			__u32 fresh = base + flows + replaced;

			since = 0;
			replaced++;
			if (replaced == flows) {
				replaced = 0;
				base += flows;
			}
			return fresh;
		}
	}
	place = turn;
	if (draws) {
		__u32 *drawn = bpf_map_lookup_elem(&draw, &place);

		if (drawn)
			place = *drawn;
		period = draws;
	}
	turn = turn + 1 < period ? turn + 1 : 0;
	if (every && place < replaced)
		place += flows;
	return base + place;
}

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline void *at(struct xdp_md *ctx, __u32 offset, __u32 n)
{
	if (offset > HEADERS - n || !bound(ctx, offset + n))
		return 0;
	return (void *)(long)ctx->data + offset;
}

/* The tunnel's headers: its source and what depends on the length. */
static __always_inline int put_tunnel(struct xdp_md *ctx, struct out *o, __u32 flow, __u32 len)
{
	struct ipv4 *ip = at(ctx, TUNNEL_IP, sizeof(*ip));
	__u32 sum = tunnel_sum;

	if (!ip)
		return 0;
	if (sizes > 1) {
		ip->len = bpf_htons((__u16)(len - TUNNEL_IP));
		sum += len - TUNNEL_IP;
	}
	if (o) {
		ip->src[0] = o->peer[0];
		ip->src[1] = o->peer[1];
		sum += o->peer_sum;
	}
	if (sizes > 1 || o)
		ip->checksum = bpf_htons((__u16)~folded(sum));
	if (tunnel == VXLAN) {
		struct udp *u = at(ctx, TUNNEL_UDP, sizeof(*u));

		if (!u)
			return 0;
		u->src = bpf_htons((__u16)(tunnel_port + flow % tunnel_ports));
		if (sizes > 1)
			u->len = bpf_htons((__u16)(len - TUNNEL_UDP));
	}
	return 1;
}

/* The source's MAC and the addresses. */
static __always_inline int put_ends(struct xdp_md *ctx, struct out *o, struct destination *d, __u32 len)
{
	struct ipv4 *ip = at(ctx, ip_offset, sizeof(*ip));
	__u32 sum = ip_sum;

	if (!ip)
		return 0;
	if (sizes > 1) {
		ip->len = bpf_htons((__u16)(len - ip_offset));
		sum += len - ip_offset;
	}
	if (o) {
		ip->src[0] = o->addr[0];
		ip->src[1] = o->addr[1];
		sum += o->sum;
		if (tunnel != IPIP) {
			__u16 *mac = (void *)ip - 8;

			mac[0] = o->mac[0];
			mac[1] = o->mac[1];
			mac[2] = o->mac[2];
		}
	}
	if (d) {
		ip->dst[0] = d->addr[0];
		ip->dst[1] = d->addr[1];
		sum += d->sum;
	}
	ip->checksum = bpf_htons((__u16)~folded(sum));
	return 1;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	if (*(volatile __u32 *)&stopped || generated >= max_frames)
		return XDP_DROP;
	if (interval && !is_due())
		return XDP_DROP;

	__u32 len = largest;
	if (sizes > 1) {
		__u32 s = next_size;

		next_size = s + 1 < sizes ? s + 1 : 0;
		len = size[s & (SIZES - 1)];
		if (bpf_xdp_adjust_tail(ctx, (int)len - (int)largest))
			return XDP_ABORTED;
	}
	__u32 flow = next_flow(), ifindex = device;
	struct out *o = 0;
	struct destination *d = 0;
	if (outs > 1) {
		__u32 i = flow % outs;

		o = bpf_map_lookup_elem(&out, &i);
		if (!o)
			return XDP_ABORTED;
		ifindex = o->ifindex;
	}
	if (destinations > 1) {
		__u32 i = flow / outs % destinations;

		d = bpf_map_lookup_elem(&destination, &i);
		if (!d)
			return XDP_ABORTED;
	}
	if (!bound(ctx, 8 * frame_words))
		return XDP_ABORTED;
	__u64 *word = (void *)(long)ctx->data;
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		if (i < frame_words)
			word[i] = frame_template[i];
	if (tunnel != NO_TUNNEL && !put_tunnel(ctx, o, flow, len))
		return XDP_ABORTED;
	if ((sizes > 1 || outs > 1 || destinations > 1) && !put_ends(ctx, o, d, len))
		return XDP_ABORTED;

	__u16 src = first_port + (flow & ((1 << port_bits) - 1)), dst = destination_port + (flow >> port_bits);
	struct udp *u = at(ctx, udp_offset, sizeof(*u));
	if (!u)
		return XDP_ABORTED;
	__u32 sum = udp_sum + src + dst;
	u->src = bpf_htons(src);
	u->dst = bpf_htons(dst);
	if (sizes > 1) {
		__u32 n = len - udp_offset;

		u->len = bpf_htons((__u16)n);
		sum += 2 * n;
	}
	if (o)
		sum += o->sum;
	if (d)
		sum += d->sum;
	__u16 checksum = ~folded(sum);
	u->checksum = checksum ? bpf_htons(checksum) : 0xffff;
	generated++;
	return bpf_redirect(ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
