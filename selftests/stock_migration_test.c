// SPDX-License-Identifier: GPL-2.0
/* What migration_test.c shows, with a distribution's libbpf and map_trace_libbpf.c */
#define SETUP map_trace_setup
#define ATTACH_TRACERS "migration-5.c"
#include "migration_test.c"
