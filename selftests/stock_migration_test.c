// SPDX-License-Identifier: GPL-2.0
/* The tests of migration_test.c, with a distribution's libbpf and map_trace_libbpf.c */
#define SETUP map_trace_setup
#define ATTACH_FOLLOW "migration-4.c"
#define ATTACH(prog) map_trace_attach_program(self->new->obj, prog)
#include "migration_test.c"
