/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SYNC_RESIZE_H
#define SYNC_RESIZE_H

#define RESIZE_KEYS 4096
/* What stays while the others come and go */
#define RESIZE_STAY 256

#endif
