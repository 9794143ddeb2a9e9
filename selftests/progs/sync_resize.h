/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SYNC_RESIZE_H
#define SYNC_RESIZE_H

#define RESIZE_KEYS 16384
/* What stays while the others come and go */
#define RESIZE_STAY 1024

#endif
