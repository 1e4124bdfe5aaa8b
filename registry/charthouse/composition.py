"""What a registry is made of, put together: the database and the blob store that the settings name.

Apart from `app.py`, because the command line needs it without the web framework.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from charthouse import clocks, queries
from charthouse.backup import demand_finished
from charthouse.blobs import open_store
from charthouse.clocks import Clock
from charthouse.core import Registry
from charthouse.database import Database, DatabaseError
from charthouse.helm.helper import Helper
from charthouse.migrate import migrate_postgres, migrate_sqlite
from charthouse.ownership import claim, demand_no_blobs
from charthouse.reserve import Reserve
from charthouse.settings import DATABASE_NAME, Settings
from charthouse.uploads import UploadIds, load_key


async def open_registry(
    settings: Settings,
    *,
    clock: Clock = time.time,
    steady: Clock | None = None,
    durable: bool = True,
    step_limit: int | None = None,
    threads: ThreadPoolExecutor | None = None,
    helper: Helper | None = None,
    restoring: bool = False,
) -> Registry:
    """A registry over the settings' database and folder, both made and brought up to date.

    `steady` is a clock that nobody sets; without, a `clock` other than the system's is taken to be one itself.
    `durable=False` leaves every fsync out; `step_limit` is SqliteDatabase's; `threads` and `helper` are shared with the
    other registries of a process that has many, and stay when this one is closed. Raises DatabaseError, OSError.
    """
    if not restoring:
        demand_finished(settings.data)
    settings.data.mkdir(parents=True, exist_ok=True)
    database = await _open_database(settings, durable=durable, step_limit=step_limit, threads=threads)
    try:
        await claim(settings.data, database, durable=durable)
    except BaseException:
        await database.close()
        raise
    upload_ids = UploadIds(load_key(settings.data, durable=durable), settings.upload_expiry)
    store = open_store(settings, clock=clock, durable=durable, threads=threads)
    if steady is None:
        steady = clocks.steady if clock is time.time else clock
    has_reserve = durable and not settings.database and not settings.ephemeral  # PostgreSQL has a disk of its own
    reserve = Reserve(settings.data, settings.disk_reserve if has_reserve else 0)
    return Registry(settings, database, store, upload_ids, clock, steady, reserve, helper)


def is_there(settings: Settings) -> bool:
    """Whether a registry was ever opened in the data folder."""
    return (settings.data / "upload.key").exists()


async def open_existing(settings: Settings) -> Registry:
    """The registry whose data is there already. Raises DatabaseError when there is none: only a server makes one."""
    if not is_there(settings):
        raise DatabaseError(
            f"there is no registry in {settings.data.absolute()}: name its folder with --data or CHARTHOUSE_DATA"
            " (`charthouse serve` makes one)"
        )
    return await open_registry(settings)


async def has_users(settings: Settings) -> bool:
    """Whether the registry is closed to whoever does not sign in. Raises DatabaseError."""
    demand_finished(settings.data)
    database = await _open_database(settings, durable=True, step_limit=None, threads=None)
    try:
        return await database.read(queries.has_users)
    finally:
        await database.close()


async def _open_database(
    settings: Settings, *, durable: bool, step_limit: int | None, threads: ThreadPoolExecutor | None
) -> Database:
    making = partial(demand_no_blobs, settings.data)
    if settings.database:
        from charthouse.database.postgres import PostgresDatabase  # an extra

        database = PostgresDatabase(settings.database)
        try:
            await migrate_postgres(database, making)
        except BaseException:
            await database.close()
            raise
        return database
    from charthouse.database.sqlite import SqliteDatabase

    path = settings.data / DATABASE_NAME
    migrate_sqlite(path, making)
    return SqliteDatabase(path, durable=durable, step_limit=step_limit, threads=threads)
