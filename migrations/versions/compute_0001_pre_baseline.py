"""The first schema of a compute cell."""

from migrations import machinery_0001
from migrations.tables import blob, boolean, create_table, identity, integer, state, string, text

revision = "compute_0001"
down_revision = None
branch_labels = ("compute",)
depends_on = None


def upgrade() -> None:
    machinery_0001.create()
    create_table(
        "pools",
        string("name"),
        string("url"),
        string("user"),
        blob("secret"),
        string("fingerprint"),
        integer("asked"),
        integer("heard"),
        text("error"),
        string("when_host_dies"),
        string("when_disks_are_lost"),
        key=("name",),
    )
    create_table(
        "hosts",
        string("uuid"),
        string("pool"),
        string("name"),
        state("state"),
        integer("ram_mib"),
        integer("physical_mib"),
        integer("vcpus"),
        integer("disk_gib"),
        integer("free_ram_mib"),
        integer("free_vcpus"),
        integer("free_disk_gib"),
        string("sr"),
        string("network"),
        string("group"),
        string("hypervisor_version"),
        string("zone"),
        blob("traits"),
        integer("foreign_mib"),
        string("fenced_from"),
        key=("uuid",),
        indexes=(("pool",),),
    )
    create_table(
        "storage_groups",
        string("name"),
        string("pool"),
        string("sr"),
        integer("disk_gib"),
        integer("free_disk_gib"),
        key=("name",),
    )
    create_table(
        "instances",
        identity("id"),
        string("owner"),
        string("request"),
        integer("attempt"),
        state("phase"),
        integer("version"),
        boolean("unseen"),
        integer("updated"),
        string("host"),
        string("pool"),
        blob("spec"),
        blob("state"),
        integer("number"),
        blob("failed", nullable=True),
        identity("job"),
        blob("command", nullable=True),
        blob("queue"),
        string("old_host"),
        blob("before", nullable=True),
        integer("forget"),
        blob("moving", nullable=True),
        blob("proof"),
        boolean("stale"),
        key=("id",),
        indexes=(("unseen", "owner", "updated"), ("owner", "id"), ("host",), ("stale",)),
    )
    create_table(
        "lost_copies",
        identity("server"),
        string("host"),
        string("pool"),
        integer("serial"),
        integer("due"),
        key=("server", "host"),
    )
