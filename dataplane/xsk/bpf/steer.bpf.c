/* The XDP programs that hand frames to AF_XDP sockets.
 *
 * steer_uplink takes from a NIC only what is ours: UDP datagrams whose outer
 * destination address and port are in the map "endpoints". Everything else,
 * fragments included, goes to the kernel, so that the node stays reachable
 * whatever becomes of Culvert. steer_pod takes everything from a pod's veth.
 *
 * Both look for the socket of the frame's receive queue in the map "sockets".
 * When there is none (the process died, or is not ready), the NIC's frames go
 * to the kernel and the pod's are dropped: no packet of a pod may bypass the
 * rules that Culvert enforces.
 *
 * Both are "frags-aware": a frame may be longer than its linear part. Only
 * headers are read here, and they are in the linear part.
 */
#include "helpers.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64); /* queues; the loader sets the real number */
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct endpoint {
	__u8 addr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u16 port;    /* network byte order */
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct endpoint);
	__type(value, __u8);
} endpoints SEC(".maps");

struct ethernet {
	__u8 dst[6];
	__u8 src[6];
	__u16 type;
};

struct vlan {
	__u16 tci;
	__u16 type;
};

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__u16 total;
	__u16 id;
	__u16 frag;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 src;
	__u32 dst;
};

struct ipv6 {
	__u32 version_class_label;
	__u16 payload;
	__u8 next_header;
	__u8 hop_limit;
	__u8 src[16];
	__u32 dst[4];
};

struct udp {
	__u16 src;
	__u16 dst;
	__u16 len;
	__u16 checksum;
};

enum {
	ETH_IPV4 = 0x0800,
	ETH_IPV6 = 0x86dd,
	ETH_8021Q = 0x8100,
	ETH_8021AD = 0x88a8,
	PROTO_UDP = 17,
	IPV4_MF_OR_OFFSET = 0x3fff,
};

/* untag steps over one VLAN tag, if there is one. */
static __always_inline void *untag(void *at, void *end, __u16 *type)
{
	struct vlan *tag = at;

	if (*type != bpf_htons(ETH_8021Q) && *type != bpf_htons(ETH_8021AD))
		return at;
	if ((void *)(tag + 1) > end)
		return at; /* the tag's type is no IP: the caller passes the frame */
	*type = tag->type;
	return tag + 1;
}

/* ours reports whether the UDP datagram at "at" is for the endpoint whose
 * address is in key. */
static __always_inline int ours(struct udp *udp, void *end, struct endpoint *key)
{
	if ((void *)(udp + 1) > end)
		return 0;
	key->port = udp->dst;
	return bpf_map_lookup_elem(&endpoints, key) != 0;
}

static __always_inline int ours4(struct ipv4 *ip, void *end)
{
	struct endpoint key = {};
	__u32 len;

	if ((void *)(ip + 1) > end)
		return 0;
	len = (ip->version_ihl & 0x0f) * 4;
	if (ip->version_ihl >> 4 != 4 || len < sizeof(*ip))
		return 0;
	if (ip->protocol != PROTO_UDP || ip->frag & bpf_htons(IPV4_MF_OR_OFFSET))
		return 0;
	key.addr[10] = 0xff;
	key.addr[11] = 0xff;
	*(__u32 *)&key.addr[12] = ip->dst;
	return ours((void *)ip + len, end, &key);
}

/* Extension headers, the fragment header among them, are the kernel's: no
 * tunnel endpoint sends them. */
static __always_inline int ours6(struct ipv6 *ip, void *end)
{
	struct endpoint key = {};

	if ((void *)(ip + 1) > end || ip->next_header != PROTO_UDP)
		return 0;
	__builtin_memcpy(key.addr, ip->dst, sizeof(key.addr));
	return ours((void *)(ip + 1), end, &key);
}

SEC("xdp.frags")
int steer_uplink(struct xdp_md *ctx)
{
	void *at = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethernet *eth = at;
	__u16 type;
	int take = 0;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	type = eth->type;
	at = untag(eth + 1, end, &type);
	at = untag(at, end, &type);
	if (type == bpf_htons(ETH_IPV4))
		take = ours4(at, end);
	else if (type == bpf_htons(ETH_IPV6))
		take = ours6(at, end);
	if (!take)
		return XDP_PASS;
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp.frags")
int steer_pod(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

char _license[] SEC("license") = "Dual BSD/GPL";
