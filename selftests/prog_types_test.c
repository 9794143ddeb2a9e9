// SPDX-License-Identifier: GPL-2.0
/* Defect 5 of the RFC: the operations of a program are traced, whatever type it has */
#include "testing_helpers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <linux/if_ether.h>
#include <linux/perf_event.h>

#include "progs/prog_types.h"
#include "prog_types.skel.h"

#define CGROUP "/sys/fs/cgroup"
#define DONE_AFTER_MS 10000

FIXTURE(prog_types) {
	struct prog_types_bpf *skel;
	/* What makes the program run, if it is more than a test run */
	struct bpf_link *link;
	const struct bpf_program *of_sockmap;
	/* The sockets and the like end with the process of the test. */
	int fd;
};

typedef FIXTURE_DATA(prog_types) test_t;

/* These return 0, or a negative errno. */
FIXTURE_VARIANT(prog_types) {
	int (*attach)(test_t *self, const struct bpf_program *prog);
	int (*run)(test_t *self, const struct bpf_program *prog);
	const char *program;
};

/*
 * Each test is a process of its own. What takes long where the kernel is emulated, to
 * load and to attach, they get from their parent.
 */
static struct prog_types_bpf *loaded;
static int update_link = -1, delete_link = -1;

static void __attribute__((constructor)) load_and_attach(void)
{
	if (map_trace_setup())
		return;
	loaded = prog_types_bpf__open_and_load();
	if (!loaded)
		return;
	update_link = attach_to(loaded->progs.trace_update, loaded->maps.source);
	delete_link = attach_to(loaded->progs.trace_delete, loaded->maps.source);
}

FIXTURE_SETUP(prog_types)
{
	self->skel = loaded;
	ASSERT_NE(NULL, self->skel);
	ASSERT_LE(0, update_link) TH_LOG("attach: %s", strerror(-update_link));
	ASSERT_LE(0, delete_link) TH_LOG("attach: %s", strerror(-delete_link));
	memset(self->skel->bss, 0, sizeof(*self->skel->bss));
	self->skel->bss->update_ret = 1;
	self->skel->bss->delete_ret = 1;
	self->fd = -1;
}

FIXTURE_TEARDOWN(prog_types)
{
	bpf_link__destroy(self->link);
	if (self->of_sockmap)
		bpf_prog_detach2(bpf_program__fd(self->of_sockmap),
				 bpf_map__fd(self->skel->maps.sockets),
				 bpf_program__expected_attach_type(self->of_sockmap));
}

static int error(long ret)
{
	return ret < 0 ? -errno : 0;
}

/* --- ways to attach */

static int no_attach(test_t *self, const struct bpf_program *prog)
{
	return 0;
}

static int keep(test_t *self, struct bpf_link *link)
{
	self->link = link;
	return link ? 0 : -errno;
}

static int attach_by_section(test_t *self, const struct bpf_program *prog)
{
	return keep(self, bpf_program__attach(prog));
}

/* All processes are in this one, or below it. */
static int attach_to_cgroup(test_t *self, const struct bpf_program *prog)
{
	int err, fd = open(CGROUP, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	err = keep(self, bpf_program__attach_cgroup(prog, fd));
	close(fd);
	return err;
}

static int attach_to_page_faults(test_t *self, const struct bpf_program *prog)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_period = 1,
	};
	int fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : keep(self, bpf_program__attach_perf_event(prog, fd));
}

static int attach_to_sockmap(test_t *self, const struct bpf_program *prog)
{
	if (bpf_prog_attach(bpf_program__fd(prog), bpf_map__fd(self->skel->maps.sockets),
			    bpf_program__expected_attach_type(prog), 0))
		return -errno;
	self->of_sockmap = prog;
	return 0;
}

static int attach_congestion_control(test_t *self, const struct bpf_program *prog)
{
	return keep(self, bpf_map__attach_struct_ops(self->skel->maps.congestion));
}

/* --- networking, in a namespace of its own */

static int loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int err, fd;

	if (unshare(CLONE_NEWNET))
		return -errno;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = error(ioctl(fd, SIOCSIFFLAGS, &request));
	close(fd);
	return err;
}

/* A socket that is bound to an address of this host, which goes to @address */
static int bound_socket(int type, struct sockaddr_in *address)
{
	socklen_t len = sizeof(*address);
	int one = 1, fd;

	fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	*address = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)address, len) ||
	    getsockname(fd, (struct sockaddr *)address, &len))
		return -errno;
	return fd;
}

/* One end of a connection, with a congestion control if that is not NULL */
static int connected_socket(const char *congestion)
{
	struct sockaddr_in address;
	int server, client;

	server = bound_socket(SOCK_STREAM, &address);
	if (server < 0)
		return server;
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client < 0 || listen(server, 1))
		return -errno;
	if (congestion && setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, congestion,
				     strlen(congestion)))
		return -errno;
	if (connect(client, (struct sockaddr *)&address, sizeof(address)))
		return -errno;
	return client;
}

/* --- ways to run */

static int run_alone(test_t *self, const struct bpf_program *prog)
{
	int ret = run_program(prog, NULL, 0);

	return ret < 0 ? ret : 0;
}

static int run_with_packet(test_t *self, const struct bpf_program *prog)
{
	struct {
		struct ethhdr header;
		char data[50];
	} packet = { .header.h_proto = htons(ETH_P_IP) };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = &packet, .data_size_in = sizeof(packet));

	return error(bpf_prog_test_run_opts(bpf_program__fd(prog), &opts));
}

static int run_with_lookup(test_t *self, const struct bpf_program *prog)
{
	struct bpf_sk_lookup lookup = { .family = AF_INET, .protocol = IPPROTO_UDP };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &lookup, .ctx_size_in = sizeof(lookup));

	return error(bpf_prog_test_run_opts(bpf_program__fd(prog), &opts));
}

/* The end of a test run is a tracepoint. */
static int finish_a_test_run(test_t *self, const struct bpf_program *prog)
{
	return run_with_packet(self, self->skel->progs.does_nothing);
}

static int run_what_is_extended(test_t *self, const struct bpf_program *prog)
{
	return run_with_packet(self, self->skel->progs.is_extended);
}

static int run_what_is_extended_and_sleepable(test_t *self, const struct bpf_program *prog)
{
	return run_alone(self, self->skel->progs.is_extended_and_sleepable);
}

/* Not by the C library, which could know the answer. */
static int call_getpgid(test_t *self, const struct bpf_program *prog)
{
	return error(syscall(__NR_getpgid, getpid()));
}

static int touch_a_page(test_t *self, const struct bpf_program *prog)
{
	volatile char *page = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -errno;
	*page = 1;
	return 0;
}

static int send_to_a_socket_of_the_map(test_t *self, const struct bpf_program *prog)
{
	__u32 zero = 0;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds) ||
	    bpf_map_update_elem(bpf_map__fd(self->skel->maps.sockets), &zero, &fds[1], BPF_ANY))
		return -errno;
	return error(send(fds[0], "x", 1, 0));
}

static int send_from_a_socket_of_the_map(test_t *self, const struct bpf_program *prog)
{
	int fd, err = loopback_up();
	__u32 zero = 0;

	if (err)
		return err;
	fd = connected_socket(NULL);
	if (fd < 0)
		return fd;
	if (bpf_map_update_elem(bpf_map__fd(self->skel->maps.sockets), &zero, &fd, BPF_ANY))
		return -errno;
	return error(send(fd, "x", 1, 0));
}

static int connect_with_congestion_control(test_t *self, const struct bpf_program *prog)
{
	int fd, err = loopback_up();

	if (err)
		return err;
	fd = connected_socket(PROG_TYPES_CONGESTION);
	return fd < 0 ? fd : 0;
}

static int send_to_a_group_of_sockets(test_t *self, const struct bpf_program *prog)
{
	int prog_fd = bpf_program__fd(prog), err = loopback_up();
	struct sockaddr_in address;
	int fd, client;

	if (err)
		return err;
	fd = bound_socket(SOCK_DGRAM, &address);
	if (fd < 0)
		return fd;
	client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (client < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &prog_fd, sizeof(prog_fd)))
		return -errno;
	return error(sendto(client, "x", 1, 0, (struct sockaddr *)&address, sizeof(address)));
}

static int make_a_socket(test_t *self, const struct bpf_program *prog)
{
	self->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return error(self->fd);
}

static int connect_a_socket(test_t *self, const struct bpf_program *prog)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(9),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int err = loopback_up();

	if (!err)
		err = make_a_socket(self, prog);
	return err ? err : error(connect(self->fd, (struct sockaddr *)&address, sizeof(address)));
}

static int get_a_socket_option(test_t *self, const struct bpf_program *prog)
{
	int err = make_a_socket(self, prog);
	socklen_t len = sizeof(int);
	int value;

	return err ? err : error(getsockopt(self->fd, SOL_SOCKET, SO_RCVBUF, &value, &len));
}

static int listen_on_a_socket(test_t *self, const struct bpf_program *prog)
{
	struct sockaddr_in address;
	int err = loopback_up();

	if (err)
		return err;
	self->fd = bound_socket(SOCK_STREAM, &address);
	return self->fd < 0 ? self->fd : error(listen(self->fd, 1));
}

static int open_a_device(test_t *self, const struct bpf_program *prog)
{
	self->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	return error(self->fd);
}

static int read_a_sysctl(test_t *self, const struct bpf_program *prog)
{
	char text[16];

	self->fd = open("/proc/sys/kernel/pid_max", O_RDONLY | O_CLOEXEC);
	return error(self->fd < 0 ? self->fd : read(self->fd, text, sizeof(text)));
}

#define TYPE(name, how_to_attach, how_to_run)					\
	FIXTURE_VARIANT_ADD(prog_types, name) {					\
		.program = "by_" #name, .attach = how_to_attach, .run = how_to_run,	\
	};

TYPE(syscall, no_attach, run_alone)
TYPE(raw_tracepoint, no_attach, run_alone)
TYPE(raw_tracepoint_writable, attach_by_section, finish_a_test_run)
TYPE(tracepoint, attach_by_section, call_getpgid)
TYPE(kprobe, attach_by_section, call_getpgid)
TYPE(tracing, attach_by_section, run_alone)
TYPE(perf_event, attach_to_page_faults, touch_a_page)
TYPE(lsm, attach_by_section, call_getpgid)
TYPE(socket_filter, no_attach, run_with_packet)
TYPE(sched_cls, no_attach, run_with_packet)
TYPE(sched_act, no_attach, run_with_packet)
TYPE(xdp, no_attach, run_with_packet)
TYPE(cgroup_skb, no_attach, run_with_packet)
TYPE(lwt_in, no_attach, run_with_packet)
TYPE(lwt_out, no_attach, run_with_packet)
TYPE(lwt_xmit, no_attach, run_with_packet)
TYPE(flow_dissector, no_attach, run_with_packet)
TYPE(netfilter, no_attach, run_with_packet)
TYPE(sk_lookup, no_attach, run_with_lookup)
TYPE(sk_reuseport, no_attach, send_to_a_group_of_sockets)
TYPE(sk_skb, attach_to_sockmap, send_to_a_socket_of_the_map)
TYPE(sk_msg, attach_to_sockmap, send_from_a_socket_of_the_map)
TYPE(sock_ops, attach_to_cgroup, listen_on_a_socket)
TYPE(cgroup_sock, attach_to_cgroup, make_a_socket)
TYPE(cgroup_sock_addr, attach_to_cgroup, connect_a_socket)
TYPE(cgroup_device, attach_to_cgroup, open_a_device)
TYPE(cgroup_sysctl, attach_to_cgroup, read_a_sysctl)
TYPE(cgroup_sockopt, attach_to_cgroup, get_a_socket_option)
TYPE(struct_ops, attach_congestion_control, connect_with_congestion_control)

/* Loads another skeleton on top of what is there: its program's target is a program. */
static int extend(test_t *self, const struct bpf_program *prog,
		  const struct bpf_program *target, const char *function)
{
	struct prog_types_bpf *skel = prog_types_bpf__open();
	struct bpf_program *extension, *other;
	int err;

	if (!skel)
		return -errno;
	extension = bpf_object__find_program_by_name(skel->obj, bpf_program__name(prog));
	bpf_object__for_each_program(other, skel->obj)
		bpf_program__set_autoload(other, other == extension);
	bpf_map__set_autocreate(skel->maps.congestion, false);
	err = bpf_program__set_attach_target(extension, bpf_program__fd(target), function);
	/* The tracers and this test look at those of the first one. */
	if (!err)
		err = bpf_map__reuse_fd(skel->maps.source, bpf_map__fd(self->skel->maps.source));
	if (!err)
		err = bpf_map__reuse_fd(skel->maps.bss, bpf_map__fd(self->skel->maps.bss));
	if (!err)
		err = prog_types_bpf__load(skel);
	if (err)
		return err;
	return keep(self, bpf_program__attach_freplace(extension, 0, NULL));
}

static int attach_extension(test_t *self, const struct bpf_program *prog)
{
	return extend(self, prog, self->skel->progs.is_extended, "replaced");
}

static int attach_extension_of_sleepable(test_t *self, const struct bpf_program *prog)
{
	return extend(self, prog, self->skel->progs.is_extended_and_sleepable,
		      "replaced_in_sleepable");
}

TYPE(extension, attach_extension, run_what_is_extended)
TYPE(extension_of_sleepable, attach_extension_of_sleepable, run_what_is_extended_and_sleepable)

TEST_F(prog_types, update_and_delete_are_traced)
{
	__typeof__(self->skel->bss) bss = self->skel->bss;
	const struct bpf_program *prog;
	int err;

	prog = bpf_object__find_program_by_name(self->skel->obj, variant->program);
	ASSERT_NE(NULL, prog);
	err = variant->attach(self, prog);
	ASSERT_EQ(0, err) TH_LOG("attach: %s", strerror(-err));
	err = variant->run(self, prog);
	ASSERT_EQ(0, err) TH_LOG("run: %s", strerror(-err));
	/* A packet can take its time. */
	ASSERT_TRUE(wait_for_flag(&bss->done, DONE_AFTER_MS)) TH_LOG("it did not run");

	EXPECT_EQ(0, bss->update_ret);
	EXPECT_EQ(0, bss->delete_ret);
	EXPECT_EQ(1, bss->updates);
	EXPECT_EQ(1, bss->deletes);
	EXPECT_EQ(0, bss->wrong_arguments);
}

TEST_HARNESS_MAIN
