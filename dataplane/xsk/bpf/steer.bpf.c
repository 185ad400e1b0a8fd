/* The XDP programs that hand frames to AF_XDP sockets.
 *
 * steer_uplink takes from a NIC only what is ours: UDP datagrams and IPIP packets whose
 * outer destination is in the map "endpoints", and what is for an address in the
 * map "prefixes" or a port of the map "own_ports". Everything else, fragments of tunnel packets included, goes to the
 * kernel, so that the node stays reachable whatever becomes of Culvert. steer_pod takes everything from a pod's veth.
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
#include "tunnel.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64); /* queues; the loader sets the real number */
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct target);
	__type(value, __u8);
} endpoints SEC(".maps");

SEC("xdp.frags")
int steer_uplink(struct xdp_md *ctx)
{
	struct target to = {};

	void *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	int known = target_of(at, end, 2, &to);

	if (!(known && bpf_map_lookup_elem(&endpoints, &to)) && !for_pods(&to) && !for_own(at, end, 2, &to))
		return XDP_PASS;
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp.frags")
int steer_pod(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

char _license[] SEC("license") = "Dual BSD/GPL";
