/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Map tracers for programs that link a libbpf 1.x which does not know them.
 *
 * Call map_trace_register() once, before the first bpf_object__open(). From then on
 *
 *	SEC("map_trace/<map>/UPDATE_ELEM")
 *	SEC("map_trace/<map>/DELETE_ELEM")
 *	SEC("map_trace/<map>/SYNC_ELEM")
 *
 * load as map tracers. <map> is the name of a map's variable in the same object, and
 * that map is what they are attached to, by
 *
 * - a skeleton's attach function or bpf_program__attach(), if it was created with the
 *   object, and no other variable of the object has a name with the same 15 characters
 *   in front. Where that is not so they fail, and say so on standard error: libbpf does
 *   not give them the object.
 * - map_trace_attach_skeleton() or map_trace_attach_program(), always, also where
 *   bpf_map__reuse_fd() has put another map in its place.
 *
 * map_trace_attach() attaches to any map, whatever the section says.
 *
 * A libbpf that is older than the kernel knows neither the attach type nor the
 * extra information that BPF_LINK_CREATE takes, and the headers that a program is
 * built with may not either. So enum values come from the BTF of the running
 * kernel and the attribute is built here.
 */
#ifndef MAP_TRACE_LIBBPF_H
#define MAP_TRACE_LIBBPF_H

#include <linux/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bpf_link;
struct bpf_object;
struct bpf_object_skeleton;
struct bpf_program;

/* As struct bpf_map_trace_link_info of linux/bpf.h */
struct map_trace_link_info {
	__u32 map_fd;
	__u32 trace_type;
	__u64 cookie;
	/* Beside what it goes with BPF_F_BEFORE or BPF_F_AFTER in flags: an id, with BPF_F_ID */
	__u32 relative_fd;
	__u32 reserved;
	__u64 expected_revision;
};

/* The map_trace member of struct bpf_link_info, and what precedes it */
struct map_trace_info {
	__u32 type;
	__u32 id;
	__u32 prog_id;
	__u32 : 32;
	__u32 map_id;
	__u32 trace_type;
	__u64 cookie;
	__u64 missed;
	__u64 failed;
	__u64 replayed;
	__u64 pending;
	__u64 lost;
};

/* The arguments of BPF_LINK_CREATE, to be passed as they are */
struct map_trace_link_create {
	__u32 prog_fd;
	__u32 target_fd;
	__u32 attach_type;
	__u32 flags;
	__u64 info;
	__u32 info_len;
	__u32 : 32;
};

/* An enum value of the running kernel, by name; -ENOENT if it has none */
int map_trace_kernel_enum(const char *enum_name, const char *value_name);

/* BPF_TRACE_MAP of the running kernel, -EOPNOTSUPP where it has none */
int map_trace_attach_type(void);
int map_trace_type_update(void);
int map_trace_type_delete(void);
int map_trace_type_sync(void);

/* The BTF id of a function of the running kernel, for attach_btf_id */
int map_trace_target_id(const char *function);

/* Register the section handler. Safe to call more than once. */
int map_trace_register(void);

/*
 * Attach to the map of @obj that the section of @prog names. Returns NULL and sets errno
 * on failure.
 */
struct bpf_link *map_trace_attach_program(const struct bpf_object *obj,
					  const struct bpf_program *prog);

/*
 * In place of a skeleton's attach function, whose work it does: given skel->skeleton, it
 * attaches all programs that are to be attached. 0 or a negative errno
 */
int map_trace_attach_skeleton(struct bpf_object_skeleton *skeleton);

/* These return a link's fd, or a negative errno. */
int map_trace_link_create(const struct map_trace_link_create *create);
int map_trace_attach(int prog_fd, int map_fd, __u32 trace_type, __u64 cookie);

/* 0 or a negative errno; @old_prog_fd is -1, or what has to be attached now */
int map_trace_update(int link_fd, int new_prog_fd, int old_prog_fd);
int map_trace_detach(int link_fd);

/*
 * Has all that was written so far told to a SYNC_ELEM tracer: all elements, and @count keys
 * at @keys, whether they are in the map or not. @timeout_ms is 0 or the most that it may take.
 * 0 or a negative errno: -EAGAIN where the tracer has failed, and then for how many keys is
 * in *@left, if that is not NULL.
 */
int map_trace_flush(int link_fd, const void *keys, __u32 count, __u32 timeout_ms, __u64 *left);
int map_trace_get_info(int link_fd, struct map_trace_info *info);

/*
 * Make a struct bpf_link of a link's fd, which it owns from then on. Stock libbpf
 * only makes one of a pinned link: this pins the link for a moment in a BPF
 * filesystem that is mounted nowhere, and so needs CAP_SYS_ADMIN. Returns NULL and
 * sets errno on failure; the caller then still owns the fd.
 */
struct bpf_link *map_trace_link_wrap(int link_fd);

#ifdef __cplusplus
}
#endif

#endif
