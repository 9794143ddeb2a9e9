// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdbool.h>
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

/* What can be traced */
static struct operation {
	/* At the end of a section's name */
	const char *name;
	/* The function of the kernel that stands for it */
	const char *target;
	/* In enum bpf_map_trace_type */
	const char *value_name;
	int value;
} operations[] = {
#define UPDATE_ELEM 0
	{ "UPDATE_ELEM", "bpf_map_trace__update_elem", "BPF_MAP_TRACE_UPDATE_ELEM", -EAGAIN },
#define DELETE_ELEM 1
	{ "DELETE_ELEM", "bpf_map_trace__delete_elem", "BPF_MAP_TRACE_DELETE_ELEM", -EAGAIN },
#define SYNC_ELEM 2
	{ "SYNC_ELEM", "bpf_map_trace__sync_elem", "BPF_MAP_TRACE_SYNC_ELEM", -EAGAIN },
};

/* The parts of a section's name */
struct section {
	struct operation *operation;
	const char *map;
	int map_len;
};

/* Whose maps the sections name, while bpf_object__attach_skeleton() calls the handler */
static __thread const struct bpf_object *object_of_skeleton;

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

static int operation_value(struct operation *operation)
{
	if (operation->value < 0)
		operation->value = enum_or_unsupported("bpf_map_trace_type",
						       operation->value_name);
	return operation->value;
}

int map_trace_type_update(void)
{
	return operation_value(&operations[UPDATE_ELEM]);
}

int map_trace_type_delete(void)
{
	return operation_value(&operations[DELETE_ELEM]);
}

int map_trace_type_sync(void)
{
	return operation_value(&operations[SYNC_ELEM]);
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

int map_trace_flush(int link_fd, const void *keys, __u32 count, __u32 timeout_ms, __u64 *left)
{
	struct {
		__u32 link_fd;
		__u32 flags;
		__u64 keys;
		__u32 count;
		__u32 timeout_ms;
		__u64 left;
	} flush = {
		.link_fd = link_fd,
		.keys = (unsigned long)keys,
		.count = count,
		.timeout_ms = timeout_ms,
	};
	int command = enum_or_unsupported("bpf_cmd", "BPF_LINK_FLUSH");
	int err;

	if (command < 0)
		return command;
	err = syscall(__NR_bpf, command, &flush, sizeof(flush)) ? -errno : 0;
	if (left)
		*left = flush.left;
	return err;
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

static int parse_section(const struct bpf_program *prog, struct section *section)
{
	const char *name = bpf_program__section_name(prog);
	const char *slash = strrchr(name, '/');
	size_t i;

	section->map = name + strlen(SECTION_PREFIX);
	if (!strncmp(name, SECTION_PREFIX, strlen(SECTION_PREFIX)) && slash > section->map) {
		section->map_len = slash - section->map;
		for (i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
			section->operation = &operations[i];
			if (!strcmp(slash + 1, section->operation->name))
				return 0;
		}
	}
	fprintf(stderr, "map_trace: %s: section %s is not %s<map>/<operation>, for example "
		"%s<map>/%s\n", bpf_program__name(prog), name, SECTION_PREFIX, SECTION_PREFIX,
		operations[0].name);
	return -EINVAL;
}

static int setup_program(struct bpf_program *prog, long cookie)
{
	struct section section;

	(void)cookie;
	return parse_section(prog, &section);
}

static int prepare_load(struct bpf_program *prog, struct bpf_prog_load_opts *opts, long cookie)
{
	struct section section;
	int id, err;

	(void)cookie;
	err = parse_section(prog, &section);
	if (err)
		return err;
	id = map_trace_attach_type();
	if (id < 0)
		goto unsupported;
	opts->expected_attach_type = id;
	id = map_trace_target_id(section.operation->target);
	if (id < 0)
		goto unsupported;
	opts->attach_btf_id = id;
	return 0;

unsupported:
	fprintf(stderr, "map_trace: %s: this kernel's BTF has no %s: it cannot trace maps\n",
		bpf_program__name(prog), section.operation->target);
	return -EOPNOTSUPP;
}

/* The variables that are maps, in an object's BTF. NULL if there are none */
static const struct btf_type *map_variables(const struct btf *btf)
{
	int id = btf ? btf__find_by_name_kind(btf, ".maps", BTF_KIND_DATASEC) : -ENOENT;

	return id < 0 ? NULL : btf__type_by_id(btf, id);
}

/* Its type is another one in newer libbpfs. */
static int count(const struct btf_type *variables)
{
	return variables ? btf_vlen(variables) : 0;
}

static const char *variable_name(const struct btf *btf, const struct btf_type *variables, int i)
{
	const struct btf_var_secinfo *info = btf_var_secinfos(variables) + i;

	return btf__name_by_offset(btf, btf__type_by_id(btf, info->type)->name_off);
}

#define GIVE_FD "give the fd of a map to map_trace_attach()"
#define GIVE_OBJECT "give its object to map_trace_attach_program() or " \
	"map_trace_attach_skeleton(), or " GIVE_FD

static int refuse(int err, const struct bpf_program *prog, const struct section *section,
		  const char *reason, const char *remedy)
{
	fprintf(stderr, "map_trace: %s: map %.*s %s: %s\n", bpf_program__name(prog),
		section->map_len, section->map, reason, remedy);
	return err;
}

/* Which one of the variables the section names, or a negative errno */
static int find_variable(const struct bpf_program *prog, const struct section *section,
			 const struct btf *btf, const struct btf_type *variables)
{
	int i;

	for (i = 0; i < count(variables); i++) {
		const char *name = variable_name(btf, variables, i);

		if (strlen(name) == (size_t)section->map_len &&
		    !strncmp(name, section->map, section->map_len))
			return i;
	}
	return refuse(-ENOENT, prog, section, "is not in its object", GIVE_FD);
}

/* The kernel keeps as much of a name. */
static bool same_in_kernel(const char *name, const char *other)
{
	return !strncmp(name, other, BPF_OBJ_NAME_LEN - 1);
}

static int map_info(int fd, struct bpf_map_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, len);
	return bpf_obj_get_info_by_fd(fd, info, &len) ? -errno : 0;
}

/*
 * A new fd of the only map with this BTF and this name in the kernel. -ENOENT if there is
 * none, -ENOTUNIQ if there are more
 */
static int find_in_kernel(__u32 btf_id, const char *name)
{
	int found = -ENOENT;
	__u32 id = 0;

	while (!bpf_map_get_next_id(id, &id)) {
		int fd = bpf_map_get_fd_by_id(id);
		struct bpf_map_info info;

		if (fd < 0)
			continue;
		if (map_info(fd, &info) || info.btf_id != btf_id ||
		    !same_in_kernel(info.name, name)) {
			close(fd);
			continue;
		}
		if (found >= 0) {
			close(found);
			close(fd);
			return -ENOTUNIQ;
		}
		found = fd;
	}
	if (errno == ENOENT)
		return found;
	if (found >= 0)
		close(found);
	return -errno;
}

/*
 * Without the object, which libbpf does not give to a handler. The kernel knows that the
 * program and the maps which were created with it have the same BTF, and that has the
 * names of the object's variables in full. A map that was created by others has another
 * BTF, or none. Returns a new fd, or a negative errno.
 */
static int find_map_of_program(const struct bpf_program *prog, const struct section *section)
{
	const struct btf_type *variables;
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	const char *name;
	struct btf *btf;
	int wanted, i, fd;

	if (bpf_obj_get_info_by_fd(bpf_program__fd(prog), &info, &len))
		return -errno;
	btf = btf__load_from_kernel_by_id(info.btf_id);
	if (!btf)
		return -errno;
	variables = map_variables(btf);
	wanted = find_variable(prog, section, btf, variables);
	fd = wanted;
	if (wanted < 0)
		goto out;
	name = variable_name(btf, variables, wanted);
	for (i = 0; i < count(variables); i++) {
		if (i == wanted || !same_in_kernel(name, variable_name(btf, variables, i)))
			continue;
		fd = refuse(-ENOTUNIQ, prog, section, "and another one have the same name in the "
			    "kernel, which cuts it", GIVE_OBJECT);
		goto out;
	}
	fd = find_in_kernel(info.btf_id, name);
	if (fd == -ENOENT)
		refuse(fd, prog, section, "was not created with its object", GIVE_OBJECT);
	else if (fd == -ENOTUNIQ)
		refuse(fd, prog, section, "is not the only one of that name with the BTF of its "
		       "object", GIVE_OBJECT);
out:
	btf__free(btf);
	return fd;
}

/*
 * With the object. bpf_map__reuse_fd() gives a map the name that the other one has in the
 * kernel, but it stays in its place, and that is the place of the variable in the object's
 * BTF. Each map that was created with the object shows that this is so. Returns the
 * object's own fd, or a negative errno.
 */
static int find_map_of_object(const struct bpf_object *obj, const struct bpf_program *prog,
			      const struct section *section)
{
	const struct btf *btf = bpf_object__btf(obj);
	const struct btf_type *variables = map_variables(btf);
	int wanted = find_variable(prog, section, btf, variables);
	struct bpf_btf_info btf_info = {};
	__u32 len = sizeof(btf_info);
	struct bpf_map *map;
	int i = 0, fd = -1;

	if (wanted < 0)
		return wanted;
	if (bpf_obj_get_info_by_fd(bpf_object__btf_fd(obj), &btf_info, &len))
		return refuse(-errno, prog, section, "is of an object without BTF in the kernel",
			      GIVE_FD);
	bpf_object__for_each_map(map, obj) {
		struct bpf_map_info info;

		if (i == count(variables))
			break;
		if (!map_info(bpf_map__fd(map), &info)) {
			if (info.btf_id == btf_info.id &&
			    !same_in_kernel(info.name, variable_name(btf, variables, i)))
				break;
			if (i == wanted)
				fd = bpf_map__fd(map);
		}
		i++;
	}
	if (i < count(variables))
		return refuse(-ENOTUNIQ, prog, section, "is of an object whose maps are not in the "
			      "order of its BTF", GIVE_FD);
	return fd < 0 ? refuse(-EINVAL, prog, section, "is not created", GIVE_FD) : fd;
}

/* @obj is NULL where it is not known. 0 or a negative errno */
static int attach_to_map_of_section(const struct bpf_object *obj, const struct bpf_program *prog,
				    struct bpf_link **link)
{
	int map_fd, link_fd, trace_type, err;
	struct section section;

	*link = NULL;
	err = parse_section(prog, &section);
	if (err)
		return err;
	trace_type = operation_value(section.operation);
	if (trace_type < 0)
		return trace_type;
	map_fd = obj ? find_map_of_object(obj, prog, &section) :
		       find_map_of_program(prog, &section);
	if (map_fd < 0)
		return map_fd;
	link_fd = map_trace_attach(bpf_program__fd(prog), map_fd, trace_type, 0);
	if (!obj)
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

static int attach_program(const struct bpf_program *prog, long cookie, struct bpf_link **link)
{
	(void)cookie;
	return attach_to_map_of_section(object_of_skeleton, prog, link);
}

struct bpf_link *map_trace_attach_program(const struct bpf_object *obj,
					  const struct bpf_program *prog)
{
	struct bpf_link *link;
	int err = attach_to_map_of_section(obj, prog, &link);

	if (err)
		errno = -err;
	return link;
}

int map_trace_attach_skeleton(struct bpf_object_skeleton *skeleton)
{
	int err;

	object_of_skeleton = *skeleton->obj;
	err = bpf_object__attach_skeleton(skeleton);
	object_of_skeleton = NULL;
	return err;
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
