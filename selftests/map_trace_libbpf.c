// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>
#include <linux/mount.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "map_trace_libbpf.h"

#define SECTION_PREFIX "map_trace/"

/*
 * Functions of libbpf 1.0 only, here and below, and of linux/bpf.h what that knows:
 * what came later is here under a name of its own.
 */
#define PIN_PATH_FD (1U << 14)

/* The arguments of BPF_OBJ_PIN */
struct obj_pin {
	__u64 pathname;
	__u32 bpf_fd;
	__u32 file_flags;
	__s32 path_fd;
	/* The kernel looks at it: not a hole, which nobody initializes */
	__u32 zero;
};

static struct btf *vmlinux_btf(void)
{
	static struct btf *btf;

	if (!btf)
		btf = btf__load_vmlinux_btf();
	return btf;
}

int map_trace_kernel_enum(const char *enum_name, const char *value_name)
{
	const struct btf *btf = vmlinux_btf();
	const struct btf_enum *value;
	const struct btf_type *type;
	int id;
	__u32 i;

	if (!btf)
		return -errno;
	id = btf__find_by_name_kind(btf, enum_name, BTF_KIND_ENUM);
	if (id < 0)
		return -ENOENT;
	type = btf__type_by_id(btf, id);
	value = btf_enum(type);
	for (i = 0; i < (__u32)btf_vlen(type); i++, value++)
		if (!strcmp(btf__name_by_offset(btf, value->name_off), value_name))
			return value->val;
	return -ENOENT;
}

static int enum_or_unsupported(const char *enum_name, const char *value_name)
{
	int value = map_trace_kernel_enum(enum_name, value_name);

	return value == -ENOENT ? -EOPNOTSUPP : value;
}

int map_trace_attach_type(void)
{
	static int value = -EAGAIN;

	if (value < 0)
		value = enum_or_unsupported("bpf_attach_type", "BPF_TRACE_MAP");
	return value;
}

int map_trace_type_update(void)
{
	static int value = -EAGAIN;

	if (value < 0)
		value = enum_or_unsupported("bpf_map_trace_type", "BPF_MAP_TRACE_UPDATE_ELEM");
	return value;
}

int map_trace_type_delete(void)
{
	static int value = -EAGAIN;

	if (value < 0)
		value = enum_or_unsupported("bpf_map_trace_type", "BPF_MAP_TRACE_DELETE_ELEM");
	return value;
}

int map_trace_target_id(const char *function)
{
	const struct btf *btf = vmlinux_btf();

	return btf ? btf__find_by_name_kind(btf, function, BTF_KIND_FUNC) : -errno;
}

int map_trace_link_create(const struct map_trace_link_create *create)
{
	long fd = syscall(__NR_bpf, BPF_LINK_CREATE, create, sizeof(*create));

	return fd < 0 ? -errno : fd;
}

int map_trace_attach(int prog_fd, int map_fd, __u32 trace_type, __u64 cookie)
{
	struct map_trace_link_info info = {
		.map_fd = map_fd,
		.trace_type = trace_type,
		.cookie = cookie,
	};
	struct map_trace_link_create create = {
		.prog_fd = prog_fd,
		.info = (unsigned long)&info,
		.info_len = sizeof(info),
	};
	int attach_type = map_trace_attach_type();

	if (attach_type < 0)
		return attach_type;
	create.attach_type = attach_type;
	return map_trace_link_create(&create);
}

int map_trace_update(int link_fd, int new_prog_fd, int old_prog_fd)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts);

	if (old_prog_fd >= 0) {
		opts.flags = BPF_F_REPLACE;
		opts.old_prog_fd = old_prog_fd;
	}
	return bpf_link_update(link_fd, new_prog_fd, &opts) ? -errno : 0;
}

int map_trace_detach(int link_fd)
{
	return bpf_link_detach(link_fd) ? -errno : 0;
}

int map_trace_get_info(int link_fd, struct map_trace_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return bpf_obj_get_info_by_fd(link_fd, info, &len) ? -errno : 0;
}

struct bpf_link *map_trace_link_wrap(int link_fd)
{
	struct obj_pin pin = {
		.pathname = (unsigned long)"link",
		.bpf_fd = link_fd,
		.file_flags = PIN_PATH_FD,
	};
	struct bpf_link *link = NULL;
	int context, mount = -1, err;
	char path[64];

	context = syscall(__NR_fsopen, "bpf", FSOPEN_CLOEXEC);
	if (context < 0)
		return NULL;
	if (!syscall(__NR_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mount = syscall(__NR_fsmount, context, FSMOUNT_CLOEXEC, 0);
	err = errno;
	close(context);
	if (mount < 0)
		goto out;

	pin.path_fd = mount;
	if (syscall(__NR_bpf, BPF_OBJ_PIN, &pin, sizeof(pin))) {
		err = errno;
		goto out_mount;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d/link", mount);
	link = bpf_link__open(path);
	err = errno;
	if (link) {
		bpf_link__unpin(link);
		close(link_fd);
	} else {
		unlinkat(mount, "link", 0);
	}
out_mount:
	close(mount);
out:
	errno = err;
	return link;
}

/* The target, and the map's name if @name is not NULL, of a section */
static int parse_section(const char *section, const char **target, int *trace_type,
			 char *name, size_t name_size)
{
	const char *map = section + strlen(SECTION_PREFIX);
	const char *slash = strrchr(map, '/');

	if (!slash || slash == map)
		return -EINVAL;
	if (!strcmp(slash + 1, "UPDATE_ELEM")) {
		*target = "bpf_map_trace__update_elem";
		*trace_type = map_trace_type_update();
	} else if (!strcmp(slash + 1, "DELETE_ELEM")) {
		*target = "bpf_map_trace__delete_elem";
		*trace_type = map_trace_type_delete();
	} else {
		return -EINVAL;
	}
	if (name) {
		if ((size_t)(slash - map) >= name_size)
			slash = map + name_size - 1;
		memcpy(name, map, slash - map);
		name[slash - map] = '\0';
	}
	return 0;
}

static int setup_program(struct bpf_program *prog, long cookie)
{
	const char *target;
	int trace_type;

	(void)cookie;
	if (parse_section(bpf_program__section_name(prog), &target, &trace_type, NULL, 0)) {
		fprintf(stderr, "map_trace: %s: section %s is not map_trace/<map>/UPDATE_ELEM "
			"or map_trace/<map>/DELETE_ELEM\n", bpf_program__name(prog),
			bpf_program__section_name(prog));
		return -EINVAL;
	}
	return 0;
}

static int prepare_load(struct bpf_program *prog, struct bpf_prog_load_opts *opts, long cookie)
{
	const char *target;
	int id, trace_type;

	(void)cookie;
	if (parse_section(bpf_program__section_name(prog), &target, &trace_type, NULL, 0))
		return -EINVAL;
	id = map_trace_attach_type();
	if (id < 0)
		goto unsupported;
	opts->expected_attach_type = id;
	id = map_trace_target_id(target);
	if (id < 0)
		goto unsupported;
	opts->attach_btf_id = id;
	return 0;

unsupported:
	fprintf(stderr, "map_trace: %s: this kernel's BTF has no %s: it cannot trace maps\n",
		bpf_program__name(prog), target);
	return -EOPNOTSUPP;
}

/*
 * libbpf does not tell a handler which object a program is of. The kernel does: all
 * programs and maps of an object refer to the object's BTF. A map that was created
 * by others, or without BTF, is attached to with map_trace_attach().
 */
static int find_map(const struct bpf_program *prog, const char *name)
{
	struct bpf_prog_info prog_info = {};
	__u32 len = sizeof(prog_info);
	int found = -ENOENT;
	__u32 id = 0;

	if (bpf_obj_get_info_by_fd(bpf_program__fd(prog), &prog_info, &len))
		return -errno;
	while (!bpf_map_get_next_id(id, &id)) {
		struct bpf_map_info info = {};
		int fd = bpf_map_get_fd_by_id(id);

		if (fd < 0)
			continue;
		len = sizeof(info);
		if (!bpf_obj_get_info_by_fd(fd, &info, &len) && info.btf_id &&
		    info.btf_id == prog_info.btf_id && !strcmp(info.name, name)) {
			if (found >= 0) {
				close(found);
				close(fd);
				return -ENOTUNIQ;
			}
			found = fd;
			continue;
		}
		close(fd);
	}
	return found;
}

static int attach_program(const struct bpf_program *prog, long cookie, struct bpf_link **link)
{
	int map_fd, link_fd, trace_type, err;
	/* The kernel keeps as much of a name */
	char name[BPF_OBJ_NAME_LEN];
	const char *target;

	(void)cookie;
	*link = NULL;
	err = parse_section(bpf_program__section_name(prog), &target, &trace_type, name,
			    sizeof(name));
	if (err)
		return err;
	map_fd = find_map(prog, name);
	if (map_fd < 0) {
		fprintf(stderr, "map_trace: %s: %s map %s with BTF in its object\n",
			bpf_program__name(prog), map_fd == -ENOTUNIQ ? "more than one" : "no",
			name);
		return map_fd;
	}
	link_fd = map_trace_attach(bpf_program__fd(prog), map_fd, trace_type, 0);
	close(map_fd);
	if (link_fd < 0)
		return link_fd;
	*link = map_trace_link_wrap(link_fd);
	if (!*link) {
		err = -errno;
		close(link_fd);
		return err;
	}
	return 0;
}

int map_trace_register(void)
{
	LIBBPF_OPTS(libbpf_prog_handler_opts, opts,
		.prog_setup_fn = setup_program,
		.prog_prepare_load_fn = prepare_load,
		.prog_attach_fn = attach_program,
	);
	static int handler = -1;

	if (handler < 0)
		handler = libbpf_register_prog_handler(SECTION_PREFIX, BPF_PROG_TYPE_TRACING, 0,
						       &opts);
	return handler < 0 ? handler : 0;
}
