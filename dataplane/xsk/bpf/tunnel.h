/* Which frames on an uplink are ours: UDP datagrams and IPIP packets, by their outer
 * destination, and, where peers are reached without a tunnel, what is for our pods.
 * Shared by the programs here and in dataplane/intake/bpf. Include a helpers.h first.
 * Only headers in the linear part of a frame are read. */
#pragma once

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
	PROTO_IPIP = 4,
	PROTO_UDP = 17,
	IPV4_MF_OR_OFFSET = 0x3fff,
};

/* Where a datagram or an IPIP packet goes. */
struct target {
	__u8 addr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u16 port;    /* network byte order; 0 is IPIP */
	__u16 pad;
};

/* The pods' prefixes, and how many there are: who has none does not look. */
struct prefix {
	__u32 length; /* bits of addr */
	__u8 addr[16]; /* IPv4 as ::ffff:a.b.c.d */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} prefixes SEC(".maps");

volatile __u32 routed = 0;

/* untag steps over one VLAN tag, if there is one. */
static __always_inline void *untag(void *at, void *end, __u16 *type)
{
	struct vlan *tag = at;

	if (*type != bpf_htons(ETH_8021Q) && *type != bpf_htons(ETH_8021AD))
		return at;
	if ((void *)(tag + 1) > end)
		return at; /* the tag's type is no IP: the frame has no target */
	*type = tag->type;
	return tag + 1;
}

static __always_inline int udp_target(struct udp *udp, void *end, struct target *to)
{
	if ((void *)(udp + 1) > end)
		return 0;
	to->port = udp->dst;
	return udp->dst != 0;
}

static __always_inline int ipv4_target(struct ipv4 *ip, void *end, struct target *to)
{
	__u32 len;

	if ((void *)(ip + 1) > end)
		return 0;
	len = (ip->version_ihl & 0x0f) * 4;
	if (ip->version_ihl >> 4 != 4 || len < sizeof(*ip))
		return 0;
	to->addr[10] = 0xff;
	to->addr[11] = 0xff;
	*(__u32 *)&to->addr[12] = ip->dst;
	if (ip->frag & bpf_htons(IPV4_MF_OR_OFFSET))
		return 0;
	if (ip->protocol == PROTO_UDP)
		return udp_target((void *)ip + len, end, to);
	return ip->protocol == PROTO_IPIP;
}

/* Extension headers, the fragment header among them, are the kernel's: no
 * tunnel endpoint sends them. */
static __always_inline int ipv6_target(struct ipv6 *ip, void *end, struct target *to)
{
	if ((void *)(ip + 1) > end)
		return 0;
	__builtin_memcpy(to->addr, ip->dst, sizeof(to->addr));
	if (ip->next_header != PROTO_UDP)
		return 0;
	return udp_target((void *)(ip + 1), end, to);
}

/* target_of finds where the frame's datagram or IPIP packet goes, behind so many VLAN
 * tags at most. It reports 0 for a frame that is neither, or a fragment of one: then
 * "to" has the address of an IP packet all the same. "to" is zero before. */
static __always_inline int target_of(void *at, void *end, int tags, struct target *to)
{
	struct ethernet *eth = at;
	__u16 type;

	if ((void *)(eth + 1) > end)
		return 0;
	type = eth->type;
	at = untag(eth + 1, end, &type);
	if (tags > 1)
		at = untag(at, end, &type);
	if (type == bpf_htons(ETH_IPV4))
		return ipv4_target(at, end, to);
	if (type == bpf_htons(ETH_IPV6))
		return ipv6_target(at, end, to);
	return 0;
}

/* for_pods reports whether an address, that of target_of, is in a pods' prefix. */
static __always_inline int for_pods(const struct target *to)
{
	struct prefix key = {.length = 128};

	if (!routed)
		return 0;
	__builtin_memcpy(key.addr, to->addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&prefixes, &key) != 0;
}
