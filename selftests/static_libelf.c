// SPDX-License-Identifier: GPL-2.0
/*
 * What libelf.a of elfutils 0.192 wants and no archive of Debian 13 has: its tree of
 * raw chunks, which is set up and torn down with each file, and which nobody here puts
 * anything into. The memory it is in comes cleared.
 */
void eu_search_tree_init(void *tree)
{
}

void eu_search_tree_fini(void *tree, void (*free_node)(void *))
{
}
