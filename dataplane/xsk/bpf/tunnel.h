/* Which frames on an uplink are ours: UDP datagrams and IPIP packets, by their outer
 * destination, and, where peers are reached without a tunnel, what is for our pods, and
 * what is for those ports of the node's own that pods leave the cluster by.
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
	PROTO_ICMP = 1,
	PROTO_IPIP = 4,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ICMPV6 = 58,
	PROTO_SCTP = 132,
	IPV4_MF_OR_OFFSET = 0x3fff,
	IPV4_OFFSET = 0x1fff,
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

/* The node's own addresses, IPv4 and IPv6, and which of their ports are ours: a bit for
 * each port of TCP, then of UDP, then of SCTP, then for each identifier of an echo.
 * Who has none does not look. */
enum { OWN_TCP, OWN_UDP, OWN_SCTP, OWN_ECHO, OWN_KINDS, OWN_WORDS = 65536 / 64 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OWN_KINDS * OWN_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} own_ports SEC(".maps");

volatile __u32 translating = 0;
volatile __u64 own_addrs[4] = {};

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

struct ports {
	__u16 src;
	__u16 dst;
};

struct icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u16 id;
	__u16 seq;
};

static __always_inline int is_own(const __u64 *addr)
{
	return (addr[0] == own_addrs[0] && addr[1] == own_addrs[1]) || (addr[0] == own_addrs[2] && addr[1] == own_addrs[3]);
}

static __always_inline int own_port(__u32 kind, __u16 port)
{
	__u32 number = bpf_htons(port), key = kind * OWN_WORDS + number / 64;
	__u64 *word = bpf_map_lookup_elem(&own_ports, &key);

	return word && (*word >> (number & 63) & 1);
}

static __always_inline __u32 kind_of(__u8 protocol)
{
	switch (protocol) {
	case PROTO_TCP:
		return OWN_TCP;
	case PROTO_UDP:
		return OWN_UDP;
	case PROTO_SCTP:
		return OWN_SCTP;
	}
	return OWN_KINDS;
}

/* quotes_ours reports whether the packet of that protocol, of which an ICMP error quotes
 * the transport header, has left by a port of ours. */
static __always_inline int quotes_ours(__u8 protocol, void *at, void *end, __u8 request)
{
	struct icmp *icmp = at; /* of the same length as what is quoted of others */
	struct ports *ports = at;
	__u32 kind = kind_of(protocol);

	if ((void *)(icmp + 1) > end)
		return 0;
	if (kind != OWN_KINDS)
		return own_port(kind, ports->src);
	return icmp->type == request && own_port(OWN_ECHO, icmp->id);
}

/* answers4 reports whether an IPv4 packet for the node's own address is for a port of
 * ours, or an error about a packet that has left by one. Fragments are the kernel's. */
static __always_inline int answers4(struct ipv4 *ip, void *end)
{
	__u64 quoted[2] = {};
	struct icmp *icmp;
	struct ports *ports;
	struct ipv4 *quote;
	__u32 kind;

	if ((void *)(ip + 1) > end || ip->frag & bpf_htons(IPV4_MF_OR_OFFSET))
		return 0;
	kind = kind_of(ip->protocol);
	icmp = (void *)ip + (ip->version_ihl & 0x0f) * 4;
	ports = (void *)icmp;
	if (kind != OWN_KINDS)
		return (void *)(ports + 1) <= end && own_port(kind, ports->dst);
	if (ip->protocol != PROTO_ICMP || (void *)(icmp + 1) > end)
		return 0;
	if (icmp->type == 0)
		return own_port(OWN_ECHO, icmp->id);
	if (icmp->type != 3 && icmp->type != 4 && icmp->type != 11 && icmp->type != 12)
		return 0;
	quote = (void *)(icmp + 1);
	if ((void *)(quote + 1) > end || quote->frag & bpf_htons(IPV4_OFFSET))
		return 0;
	((__u8 *)quoted)[10] = 0xff;
	((__u8 *)quoted)[11] = 0xff;
	*(__u32 *)((__u8 *)quoted + 12) = quote->src;
	if (!is_own(quoted))
		return 0;
	return quotes_ours(quote->protocol, (void *)quote + (quote->version_ihl & 0x0f) * 4, end, 8);
}

/* answers6 is answers4 for IPv6, without extension headers. */
static __always_inline int answers6(struct ipv6 *ip, void *end)
{
	struct icmp *icmp = (void *)(ip + 1);
	struct ports *ports = (void *)icmp;
	struct ipv6 *quote;
	__u64 quoted[2];
	__u32 kind;

	if ((void *)icmp > end)
		return 0;
	kind = kind_of(ip->next_header);
	if (kind != OWN_KINDS)
		return (void *)(ports + 1) <= end && own_port(kind, ports->dst);
	if (ip->next_header != PROTO_ICMPV6 || (void *)(icmp + 1) > end)
		return 0;
	if (icmp->type == 129)
		return own_port(OWN_ECHO, icmp->id);
	quote = (void *)(icmp + 1);
	if (icmp->type == 0 || icmp->type > 4 || (void *)(quote + 1) > end)
		return 0;
	__builtin_memcpy(quoted, quote->src, sizeof(quoted));
	return is_own(quoted) && quotes_ours(quote->next_header, quote + 1, end, 128);
}

/* for_own reports whether a packet, whose address target_of has found, is for a port of
 * the node's own that is ours. */
static __always_inline int for_own(void *at, void *end, int tags, const struct target *to)
{
	struct ethernet *eth = at;
	__u64 addr[2];
	__u16 type;

	__builtin_memcpy(addr, to->addr, sizeof(addr));
	if (!translating || (void *)(eth + 1) > end || !is_own(addr))
		return 0;
	type = eth->type;
	at = untag(eth + 1, end, &type);
	if (tags > 1)
		at = untag(at, end, &type);
	if (type == bpf_htons(ETH_IPV4))
		return answers4(at, end);
	if (type == bpf_htons(ETH_IPV6))
		return answers6(at, end);
	return 0;
}
