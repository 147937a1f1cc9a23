"""The tables every cell has, as they were in the first revision of both branches. Never changed any more."""

from migrations.tables import blob, boolean, create_table, identity, integer, state, string, text

BY_DAY = "RANGE COLUMNS (id) (PARTITION rest VALUES LESS THAN (MAXVALUE))"


def create() -> None:
    """Create them."""
    create_table(
        "inbox",
        identity("id"),
        integer("expires"),
        key=("id",),
        indexes=(("expires",),),
        partition_by=BY_DAY,
    )
    create_table(
        "outbox",
        identity("id"),
        integer("shard"),
        string("destination"),
        integer("next_try"),
        integer("attempts"),
        integer("deadline"),
        blob("data"),
        key=("id",),
        indexes=(("shard", "next_try"),),
    )
    create_table(
        "wakes",
        identity("id"),
        integer("shard"),
        integer("due"),
        identity("server"),
        blob("data"),
        key=("id",),
        indexes=(("shard", "due"),),
    )
    create_table(
        "jobs",
        identity("id"),
        integer("shard"),
        string("kind"),
        identity("server"),
        string("lane"),
        string("request"),
        integer("started"),
        blob("body"),
        key=("id",),
        indexes=(("shard",), ("server",)),
    )
    create_table(
        "journal",
        identity("job"),
        string("step"),
        blob("value"),
        key=("job", "step"),
    )
    create_table(
        "leases",
        integer("shard"),
        string("holder"),
        integer("epoch"),
        integer("expires"),
        key=("shard",),
    )
    create_table(
        "daemons",
        string("name"),
        integer("seen"),
        string("signer"),
        key=("name",),
    )
    create_table(
        "parked",
        identity("id"),
        integer("at"),
        string("neighbour"),
        string("kind"),
        identity("server"),
        text("reason"),
        blob("data"),
        key=("id",),
        indexes=(("at",),),
        partition_by=BY_DAY,
    )
    create_table(
        "edges",
        string("neighbour"),
        boolean("parent"),
        identity("uuid"),
        state("state"),
        blob("url"),
        string("user"),
        integer("heard"),
        text("refused"),
        blob("above"),
        blob("said", nullable=True),
        identity("answered"),
        key=("neighbour",),
    )
    create_table(
        "roster",
        string("name"),
        identity("uuid"),
        blob("generation"),
        integer("updated"),
        blob("certificate"),
        blob("payload"),
        blob("signature"),
        key=("name",),
        indexes=(("updated",),),
    )
    create_table(
        "counters",
        string("name"),
        integer("value"),
        key=("name",),
    )
    create_table(
        "settings",
        string("name"),
        text("value"),
        key=("name",),
    )
    create_table(
        "story",
        identity("id"),
        identity("server"),
        string("request"),
        integer("at"),
        string("cell"),
        string("event"),
        text("text"),
        blob("trail"),
        blob("detail", nullable=True),
        key=("id",),
        indexes=(("server", "id"), ("request", "id")),
        partition_by=BY_DAY,
    )
