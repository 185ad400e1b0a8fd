/* The programs that bring the frames of many devices to one pair of sockets.
 *
 *	a pod's veth, an uplink ── take_pod, take_uplink ─┬─ small: veth "small" ── to_sockets ── AF_XDP sockets
 *	                                                  └─ GSO:   veth "bulk" ── packet sockets, then count_big
 *
 * and what to_sockets is not shown: turn_back, to_bulk, and on as the GSO frames.
 *
 * take_pod and take_uplink run at a device's tcx ingress and move what is ours to
 * the far end of one of two veths, in a namespace of their own, without a queue
 * between (bpf_redirect_peer). In place of the frame's source address they write
 * by which port it came: struct tag. A frame of a pod that finds no port is dropped:
 * no packet of a pod may bypass the rules that Culvert enforces. What ends here is
 * counted (struct counter). A frame of an uplink that is not ours is the kernel's,
 * and none of its bytes is touched.
 *
 * The order of small and GSO frames is kept by a counter for each queue: see
 * order.go. */
#include "helpers.h"
#include "../../xsk/bpf/tunnel.h"

/* Set when the programs are loaded. */
const volatile __u32 workers;
const volatile __u32 small_ifindex, bulk_ifindex; /* the near ends of the veths */
const volatile __u32 chunk_room = 1;              /* bytes of a frame in a chunk */

struct port {
	__u8 mac[6]; /* the address that the far side may send from */
	__u16 index;
	__u32 any_mac; /* ... or any */
	__u32 reserved[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32); /* ifindex */
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64); /* queues; the loader sets the real number */
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* What a port may have of a queue's ring in one turn: share.go. The worker's to
 * write. */
struct turn {
	__u32 number;
	__u32 most; /* descriptors */
};

/* Of each queue: a cache line that the programs write, and one that the worker
 * does. */
struct counter {
	__u32 big;  /* GSO frames that the packet socket has got, or has dropped */
	__u32 full; /* how often a port has had all that it may in a turn */
	__u64 lost; /* frames that the programs could not hand on */
	__u64 pad1[6];
	struct turn turn;
	__u64 pad2[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64); /* queues; the loader sets the real number */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

/* What a port has had of a queue. */
struct used {
	__u32 turn; /* the number of the turn that it is about */
	__u32 room;
};

struct share {
	struct used used;
	__u64 refused; /* frames */
	__u64 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* ports times queues; the loader sets the real number */
	__type(key, __u32);     /* the port's index times the number of queues, and the queue */
	__type(value, struct share);
} shares SEC(".maps");

struct endpoint {
	struct target to;
	__u32 ifindex; /* of the uplink */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct endpoint);
	__type(value, __u8);
} endpoints SEC(".maps");

/* What frame.ReadTag reads, in place of the source address. */
struct tag {
	__u8 mark;
	__u8 flags;
	__u16 port;  /* little-endian, as the machine */
	__u16 stamp; /* likewise */
};

enum { TAG_MARK = 0x02, TAG_GENUINE = 1, TAG_VLAN = 2 };

/* genuine reports whether the address is the one that the port's far side may use. */
static __always_inline int genuine(const __u8 *mac, const struct port *port)
{
	return port->any_mac || (*(__u16 *)mac == *(__u16 *)port->mac &&
	                         *(__u16 *)(mac + 2) == *(__u16 *)(port->mac + 2) &&
	                         *(__u16 *)(mac + 4) == *(__u16 *)(port->mac + 4));
}

/* assign chooses the frame's queue: all frames of a flow get the same. The queue
 * mapping is one more, as skb_record_rx_queue has it. */
static __always_inline __u32 assign(struct __sk_buff *skb)
{
	__u32 queue = 0;

	if (workers > 1)
		queue = bpf_get_hash_recalc(skb) % workers;
	skb->queue_mapping = queue + 1;
	return queue;
}

/* stamp is the number of big frames that the queue's packet socket has had so
 * far. */
static __always_inline __u16 stamp(struct counter *c)
{
	return *(volatile __u32 *)&c->big;
}

/* fits reports whether the port may have what room of the queue's ring the frame
 * takes, and counts the frame if not. A big frame takes none: share.go. A frame that
 * is alone in its turn always fits. CPUs that begin a port's turn at the same time may
 * lose some of what it has had: nothing rests on the last frame. */
static __always_inline int fits(struct __sk_buff *skb, struct counter *c, __u32 queue, __u16 port)
{
	__u32 key = port * workers + queue, room = 1, had;
	volatile struct turn *turn = &c->turn;
	struct share *share = bpf_map_lookup_elem(&shares, &key);
	struct used *used;

	if (skb->gso_size || !share)
		return 1;
	used = &share->used;
	if (skb->len > chunk_room)
		room += skb->len / chunk_room;
	if (used->turn != turn->number) {
		used->turn = turn->number;
		used->room = 0;
	}
	had = __sync_fetch_and_add(&used->room, room);
	if (had == 0 || had + room <= turn->most)
		return 1;
	__sync_fetch_and_add(&share->refused, 1);
	if (had <= turn->most)
		__sync_fetch_and_add(&c->full, 1);
	return 0;
}

/* lose counts a frame of the queue's that ends here, of which nobody else knows. */
static __always_inline void lose(__u32 queue)
{
	struct counter *c = bpf_map_lookup_elem(&counters, &queue);

	if (c)
		__sync_fetch_and_add(&c->lost, 1);
}

static __always_inline int drop(void)
{
	lose(0);
	return TCX_DROP;
}

/* move hands the frame to the sockets. */
static __always_inline int move(struct __sk_buff *skb)
{
	return bpf_redirect_peer(skb->gso_size ? bulk_ifindex : small_ifindex, 0);
}

SEC("tcx/ingress")
int take_pod(struct __sk_buff *skb)
{
	struct ethernet *eth = (void *)(long)skb->data;
	__u32 ifindex = skb->ifindex, queue;
	struct counter *counter;
	struct port *port;
	struct tag *tag;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return drop();
	port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!port)
		return drop();
	queue = assign(skb);
	counter = bpf_map_lookup_elem(&counters, &queue);
	if (!counter)
		return drop();
	if (!fits(skb, counter, queue, port->index))
		return TCX_DROP;
	tag = (void *)eth->src;
	/* The kernel has moved a VLAN tag from the bytes to skb->vlan_tci: it does not
	 * arrive. Pods have no VLANs: the worker drops the frame, and counts it. */
	tag->flags = (genuine(eth->src, port) ? TAG_GENUINE : 0) | (skb->vlan_present ? TAG_VLAN : 0);
	tag->mark = TAG_MARK;
	tag->port = port->index;
	tag->stamp = stamp(counter);
	return move(skb);
}

/* ours reports whether the frame is a tunnel packet to one of the uplink's endpoints, or
 * for a pod. The kernel has moved a first VLAN tag out of the bytes. */
static __always_inline int ours(struct __sk_buff *skb)
{
	struct endpoint end = {.ifindex = skb->ifindex};

	if (target_of((void *)(long)skb->data, (void *)(long)skb->data_end, 1, &end.to) &&
	    bpf_map_lookup_elem(&endpoints, &end))
		return 1;
	return for_pods(&end.to) || for_own((void *)(long)skb->data, (void *)(long)skb->data_end, 1, &end.to);
}

/* HEADERS is how far the headers reach that ours reads, options included, and QUOTED
 * those that an ICMP error quotes. Of a frame with fragments the kernel may keep fewer
 * in the linear part. */
enum { HEADERS = 14 + 4 + 60 + 8, QUOTED = HEADERS + 60 + 8 };

/* take_uplink writes by helper, not into the packet: a program that does the
 * latter has every cloned frame copied before it runs, the kernel's as well
 * (net/core/filter.c, bpf_unclone_prologue). */
SEC("tcx/ingress")
int take_uplink(struct __sk_buff *skb)
{
	__u32 reach = translating ? QUOTED : HEADERS, want = skb->len < reach ? skb->len : reach;
	__u32 ifindex = skb->ifindex, queue;
	struct counter *counter;
	struct port *port;
	struct tag tag;

	if ((void *)(long)skb->data + want > (void *)(long)skb->data_end && bpf_skb_pull_data(skb, want) < 0)
		return TCX_NEXT;
	if (!ours(skb))
		return TCX_NEXT;
	port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!port)
		return TCX_NEXT;
	queue = assign(skb);
	counter = bpf_map_lookup_elem(&counters, &queue);
	if (!counter)
		return drop();
	if (!fits(skb, counter, queue, port->index))
		return TCX_DROP;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb) < 0)
		return drop();
	tag.mark = TAG_MARK;
	tag.flags = TAG_GENUINE;
	tag.port = port->index;
	tag.stamp = stamp(counter);
	if (bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethernet, src), &tag, sizeof(tag), 0) < 0)
		return drop();
	return move(skb);
}

SEC("xdp.frags")
int to_sockets(struct xdp_md *ctx)
{
	long verdict = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);

	if (verdict != XDP_REDIRECT)
		lose(ctx->rx_queue_index);
	return verdict;
}

/* A frame that a pod's own tc program has redirected is marked, the mark comes across
 * the veths, and generic XDP passes over such frames (net/core/dev.c,
 * netif_receive_generic_xdp): what reaches the small veth's ingress behind XDP. It
 * takes the packet socket instead, as if it were big, and is counted and put in order
 * as those are. Between the far ends leads no way without a queue, for they are in one
 * namespace: it goes back to the near end first. */
SEC("tcx/ingress")
int turn_back(struct __sk_buff *skb)
{
	return bpf_redirect_peer(skb->ifindex, 0);
}

SEC("tcx/ingress")
int to_bulk(struct __sk_buff *skb)
{
	return bpf_redirect_peer(bulk_ifindex, 0);
}

/* count_big runs when the packet socket has had the frame: taps come before tcx
 * (net/core/dev.c, __netif_receive_skb_core and sch_handle_ingress). Nobody else
 * shall see it. The addition is one that returns the old value, because only
 * that is a memory barrier: who sees the new number finds the frame in the
 * socket. */
SEC("tcx/ingress")
int count_big(struct __sk_buff *skb)
{
	__u32 queue = skb->queue_mapping - 1;
	struct counter *c = bpf_map_lookup_elem(&counters, &queue);

	if (c)
		skb->mark = __sync_fetch_and_add(&c->big, 1);
	return TCX_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
