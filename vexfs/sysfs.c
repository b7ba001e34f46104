// SPDX-License-Identifier: GPL-2.0
/* /sys/fs/vexfs/<device>/: one number or word in each file. */
#include <linux/kobject.h>
#include <linux/sysfs.h>
#include "super.h"
#include "vexfs.h"

struct vexfs_attr {
	struct attribute attr;
	ssize_t (*show)(struct vexfs_sb_info *sbi, char *buf);
};

static struct kobject *vexfs_root;

#define VEXFS_ATTR(_name, _format, _value)						\
static ssize_t vexfs_show_##_name(struct vexfs_sb_info *sbi, char *buf)			\
{											\
	return sysfs_emit(buf, _format "\n", _value);					\
}											\
static struct vexfs_attr vexfs_attr_##_name = {						\
	.attr = { .name = __stringify(_name), .mode = 0444 },				\
	.show = vexfs_show_##_name,							\
}

VEXFS_ATTR(version, "%s", VEXFS_VERSION);
VEXFS_ATTR(format, "%u", le32_to_cpu(sbi->super->s_version));
VEXFS_ATTR(blocks, "%llu", sbi->blocks);
VEXFS_ATTR(free_blocks, "%lld", percpu_counter_sum_positive(&sbi->free_blocks));
VEXFS_ATTR(inodes, "%llu", (u64)sbi->groups * sbi->group_inodes);
VEXFS_ATTR(free_inodes, "%lld", percpu_counter_sum_positive(&sbi->free_inodes));
VEXFS_ATTR(vectors, "%lld", (s64)atomic64_read(&sbi->vectors));
VEXFS_ATTR(vector_cache_size, "%llu", sbi->vector_cache_size);
VEXFS_ATTR(vector_cache_bytes, "%llu", READ_ONCE(sbi->vector_cache.bytes));
VEXFS_ATTR(vector_cache_count, "%llu", READ_ONCE(sbi->vector_cache.count));
VEXFS_ATTR(vector_cache_hits, "%llu", READ_ONCE(sbi->vector_cache.hits));
VEXFS_ATTR(vector_cache_misses, "%llu", READ_ONCE(sbi->vector_cache.misses));
VEXFS_ATTR(errors, "%u", le32_to_cpu(sbi->super->s_error_count) + atomic_read(&sbi->error_count));

static ssize_t vexfs_show_features(struct vexfs_sb_info *sbi, char *buf)
{
	const struct vexfs_super_block *super = sbi->super;

	return sysfs_emit(buf, "compat 0x%x ro_compat 0x%x incompat 0x%x\n",
			  le32_to_cpu(super->s_compat), le32_to_cpu(super->s_ro_compat),
			  le32_to_cpu(super->s_incompat));
}

static struct vexfs_attr vexfs_attr_features = {
	.attr = { .name = "features", .mode = 0444 },
	.show = vexfs_show_features,
};

static struct attribute *vexfs_attrs[] = {
	&vexfs_attr_version.attr,
	&vexfs_attr_format.attr,
	&vexfs_attr_features.attr,
	&vexfs_attr_blocks.attr,
	&vexfs_attr_free_blocks.attr,
	&vexfs_attr_inodes.attr,
	&vexfs_attr_free_inodes.attr,
	&vexfs_attr_vectors.attr,
	&vexfs_attr_vector_cache_size.attr,
	&vexfs_attr_vector_cache_bytes.attr,
	&vexfs_attr_vector_cache_count.attr,
	&vexfs_attr_vector_cache_hits.attr,
	&vexfs_attr_vector_cache_misses.attr,
	&vexfs_attr_errors.attr,
	NULL
};
ATTRIBUTE_GROUPS(vexfs);

static ssize_t vexfs_attr_show(struct kobject *kobj, struct attribute *attr, char *buf)
{
	struct vexfs_sb_info *sbi = container_of(kobj, struct vexfs_sb_info, kobj);

	return container_of(attr, struct vexfs_attr, attr)->show(sbi, buf);
}

static void vexfs_kobj_release(struct kobject *kobj)
{
	complete(&container_of(kobj, struct vexfs_sb_info, kobj)->kobj_gone);
}

static const struct sysfs_ops vexfs_sysfs_ops = {
	.show	= vexfs_attr_show,
};

static const struct kobj_type vexfs_ktype = {
	.default_groups	= vexfs_groups,
	.sysfs_ops	= &vexfs_sysfs_ops,
	.release	= vexfs_kobj_release,
};

/* The mount does not depend on it: without memory there is just nothing to see. */
void vexfs_sysfs_add(struct super_block *sb)
{
	struct vexfs_sb_info *sbi = VEXFS_SB(sb);

	init_completion(&sbi->kobj_gone);
	sbi->kobj_added = true;
	if (kobject_init_and_add(&sbi->kobj, (struct kobj_type *)&vexfs_ktype, vexfs_root, "%s",
				 sb->s_id))
		pr_warn("vexfs (%s): no directory in /sys/fs/vexfs\n", sb->s_id);
}

void vexfs_sysfs_remove(struct vexfs_sb_info *sbi)
{
	if (!sbi->kobj_added)
		return;
	kobject_put(&sbi->kobj);
	wait_for_completion(&sbi->kobj_gone);
	sbi->kobj_added = false;
}

int __init vexfs_sysfs_init(void)
{
	vexfs_root = kobject_create_and_add("vexfs", fs_kobj);
	return vexfs_root ? 0 : -ENOMEM;
}

void vexfs_sysfs_exit(void)
{
	kobject_put(vexfs_root);
}
