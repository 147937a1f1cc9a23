"""The first schema of an API cell."""

from migrations import machinery_0001
from migrations.tables import blob, boolean, create_table, double, identity, integer, state, string, text

revision = "api_0001"
down_revision = None
branch_labels = ("api",)
depends_on = None


def upgrade() -> None:
    machinery_0001.create()
    create_table(
        "servers",
        identity("id"),
        string("project"),
        string("user"),
        string("name"),
        integer("created"),
        integer("updated"),
        string("request"),
        string("status"),
        string("vm_state"),
        string("task_state"),
        state("phase"),
        string("leaf"),
        integer("attempt"),
        integer("version"),
        integer("number"),
        integer("finished"),
        integer("deadline"),
        blob("spec"),
        blob("state", nullable=True),
        blob("intents"),
        blob("tried"),
        integer("fault_code"),
        text("fault"),
        integer("fault_at"),
        integer("heard"),
        boolean("locked"),
        text("description"),
        string("image"),
        string("flavor"),
        blob("tags"),
        string("access_ipv4"),
        string("access_ipv6"),
        blob("resize_to", nullable=True),
        blob("before_rebuild", nullable=True),
        boolean("secret"),
        blob("told"),
        key=("id",),
        indexes=(
            ("project", "created", "id"),
            ("project", "updated", "id"),
            ("created", "id"),
            ("leaf", "id"),
            ("phase", "project"),
        ),
    )
    create_table(
        "servers_gone",
        identity("id"),
        string("project"),
        integer("updated"),
        blob("server"),
        key=("id",),
        indexes=(("project", "updated", "id"), ("updated",)),
    )
    create_table(
        "secrets",
        identity("server"),
        blob("box"),
        key=("server",),
    )
    create_table(
        "questions",
        identity("id"),
        identity("server"),
        string("leaf"),
        integer("at"),
        boolean("done"),
        blob("body"),
        text("error"),
        key=("id",),
        indexes=(("at",),),
    )
    create_table(
        "flavors",
        string("id"),
        string("name"),
        boolean("public"),
        blob("projects"),
        blob("flavor"),
        text("description"),
        double("rxtx_factor"),
        key=("id",),
        indexes=(("name",),),
    )
    create_table(
        "usage",
        string("project"),
        integer("servers"),
        integer("vcpus"),
        integer("ram_mib"),
        key=("project",),
    )
    create_table(
        "quotas",
        string("project"),
        integer("servers"),
        integer("vcpus"),
        integer("ram_mib"),
        key=("project",),
    )
    create_table(
        "requests",
        string("id"),
        identity("server"),
        integer("at"),
        key=("id",),
        indexes=(("at",),),
    )
    create_table(
        "keypairs",
        string("user"),
        string("name"),
        text("public_key"),
        string("fingerprint"),
        integer("created"),
        string("kind"),
        key=("user", "name"),
    )
