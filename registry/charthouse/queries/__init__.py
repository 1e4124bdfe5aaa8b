"""Every SQL statement of the registry, one function each, the same text for SQLite and PostgreSQL.

Functions that change a repository begin with `change_repository`: it raises the generation, and on PostgreSQL its row
lock puts the writers of one repository in line.
"""

from charthouse.queries.api_tokens import (
    add_api_token as add_api_token,
    api_token_used as api_token_used,
    list_api_tokens as list_api_tokens,
    remove_api_token as remove_api_token,
)
from charthouse.queries.audit import (
    add_audit as add_audit,
    add_refusals as add_refusals,
    forget_audit as forget_audit,
    list_audit as list_audit,
)
from charthouse.queries.blobs import (
    add_blob as add_blob,
    extend_grace as extend_grace,
    find_blob as find_blob,
    hold_blob as hold_blob,
    holders as holders,
    look_for_blob as look_for_blob,
    name_blobs as name_blobs,
    named_by as named_by,
    release_blob as release_blob,
    replace_blob as replace_blob,
    stored_blob as stored_blob,
    unname_blobs as unname_blobs,
)
from charthouse.queries.charts import (
    has_charts as has_charts,
    list_charts as list_charts,
    put_chart as put_chart,
    tagged as tagged,
)
from charthouse.queries.damage import (
    blobs_after as blobs_after,
    change_concerned as change_concerned,
    manifests_after as manifests_after,
    mark_blob as mark_blob,
    mark_manifest as mark_manifest,
    stored_totals as stored_totals,
    unmark_blob as unmark_blob,
    unmark_manifest as unmark_manifest,
    versions_with_blob as versions_with_blob,
    versions_with_manifest as versions_with_manifest,
)
from charthouse.queries.facts import (
    StoredChart as StoredChart,
    chart_versions as chart_versions,
    find_chart as find_chart,
    find_facts as find_facts,
    newest_version as newest_version,
    not_extracted as not_extracted,
    put_facts as put_facts,
    put_findings as put_findings,
    set_newest_version as set_newest_version,
)
from charthouse.queries.logins import (
    add_login as add_login,
    end_login as end_login,
    find_login as find_login,
    list_logins as list_logins,
    login_used as login_used,
)
from charthouse.queries.manifests import (
    delete_manifest as delete_manifest,
    delete_tag as delete_tag,
    find_manifest as find_manifest,
    forget_references as forget_references,
    list_tags as list_tags,
    look_for_manifest as look_for_manifest,
    manifest_state as manifest_state,
    missing as missing,
    orphan as orphan,
    put_manifest as put_manifest,
    set_tag as set_tag,
    tags_of as tags_of,
    untag as untag,
)
from charthouse.queries.namespaces import (
    Key as Key,
    StoredNamespace as StoredNamespace,
    add_key as add_key,
    add_namespace as add_namespace,
    certificates as certificates,
    has_namespace as has_namespace,
    is_set_somewhere as is_set_somewhere,
    list_keys as list_keys,
    list_namespaces as list_namespaces,
    namespace_settings as namespace_settings,
    remove_key as remove_key,
    remove_namespace as remove_namespace,
    set_namespace as set_namespace,
    stored_limits as stored_limits,
    unset_namespace as unset_namespace,
)
from charthouse.queries.referrers import (
    list_referrers as list_referrers,
)
from charthouse.queries.registry_id import (
    give_registry_id as give_registry_id,
    registry_id as registry_id,
)
from charthouse.queries.repositories import (
    change_repository as change_repository,
    empty_repository as empty_repository,
    enter_repository as enter_repository,
    generation as generation,
    generations as generations,
    is_reachable as is_reachable,
    list_repositories as list_repositories,
    repository_id as repository_id,
)
from charthouse.queries.rows import (
    Absent as Absent,
    Chart as Chart,
    Referrer as Referrer,
    StoredBlob as StoredBlob,
    StoredManifest as StoredManifest,
    Tagged as Tagged,
    column_text as column_text,
    escaped as escaped,
)
from charthouse.queries.usage import (
    Usage as Usage,
    count_anew as count_anew,
    count_one_anew as count_one_anew,
    holds as holds,
    holds_damaged as holds_damaged,
    miscounted as miscounted,
    take_turn as take_turn,
    usage as usage,
    usage_of_each as usage_of_each,
    usage_of_each_user as usage_of_each_user,
    usage_of_user as usage_of_user,
)
from charthouse.queries.users import (
    access_generation as access_generation,
    add_member as add_member,
    add_user as add_user,
    directory as directory,
    forget_user_limits as forget_user_limits,
    has_users as has_users,
    raise_access_generation as raise_access_generation,
    remove_grant as remove_grant,
    remove_member as remove_member,
    remove_user as remove_user,
    set_disabled as set_disabled,
    set_grant as set_grant,
    set_password as set_password,
    set_user_limit as set_user_limit,
    unset_user_limit as unset_user_limit,
)
from charthouse.queries.whole import (
    advance_serials as advance_serials,
    copy_tables as copy_tables,
    count_files as count_files,
    files_after as files_after,
    filled_table as filled_table,
    forget_blob as forget_blob,
    set_key as set_key,
)
