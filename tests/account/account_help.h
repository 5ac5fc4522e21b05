/* tests/account/account_help.h - a database for each kind, and short words for what the tests do to it.
 *
 * PostgreSQL is a real one, started in a temporary folder on a socket there, as the user postgres when the
 * test runs as root.  Where the package is absent the tests on it skip and say so. */
#ifndef RT_TEST_ACCOUNT_HELP_H
#define RT_TEST_ACCOUNT_HELP_H

#include <dirent.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "account/admin.h"
#include "account/db.h"
#include "account/gate.h"

static char base_folder[64];   /* of the whole program */
static char postgres_bin[200]; /* empty: not there */
static char secrets_path[100];
static int database_number;

__attribute__((unused)) static void run_command(const char *command)
{
    if (system(command) != 0)
        fail_msg("'%s' failed", command);
}

static void find_postgres(void)
{
    DIR *versions = opendir("/usr/lib/postgresql");
    for (struct dirent *entry; versions && (entry = readdir(versions)) != NULL;) {
        char path[200];
        (void)snprintf(path, sizeof path, "/usr/lib/postgresql/%.40s/bin", entry->d_name);
        char initdb[240];
        (void)snprintf(initdb, sizeof initdb, "%s/initdb", path);
        if (entry->d_name[0] != '.' && access(initdb, X_OK) == 0)
            (void)snprintf(postgres_bin, sizeof postgres_bin, "%s", path);
    }
    if (versions)
        (void)closedir(versions);
}

/* As an unprivileged user: PostgreSQL does not start as root. */
static int as_postgres(const char *command)
{
    char text[1200];
    (void)snprintf(text, sizeof text,
                   geteuid() == 0 ? "cd / && runuser -u postgres -- sh -c \"%s\" >>%s/pg.log 2>&1"
                                  : "sh -c \"%s\" >>%s/pg.log 2>&1",
                   command, base_folder);
    return system(text);
}

static int start_databases(void **state)
{
    (void)state;
    char command[900];
    (void)snprintf(base_folder, sizeof base_folder, "/tmp/retort-account-XXXXXX");
    if (!mkdtemp(base_folder) || chmod(base_folder, 0755) != 0)
        return -1;
    (void)snprintf(secrets_path, sizeof secrets_path, "%s/secrets", base_folder);
    find_postgres();
    if (!*postgres_bin || (geteuid() == 0 && !getpwnam("postgres"))) {
        *postgres_bin = '\0';
        return 0;
    }
    (void)snprintf(command, sizeof command, "mkdir -m 700 %s/pg", base_folder);
    if (system(command) != 0)
        return -1;
    if (geteuid() == 0) {
        (void)snprintf(command, sizeof command, "chown postgres %s/pg", base_folder);
        if (system(command) != 0)
            return -1;
    }
    (void)snprintf(command, sizeof command, "%s/initdb -D %s/pg/data -A trust -U postgres -E UTF8 --no-sync",
                   postgres_bin, base_folder);
    if (as_postgres(command) != 0)
        return -1;
    (void)snprintf(
        command, sizeof command,
        "%s/pg_ctl -D %s/pg/data -w -l %s/pg/log -o '-c listen_addresses= -c unix_socket_directories=%s/pg "
        "-c max_connections=50 -c shared_buffers=16MB -c unix_socket_permissions=0777' start",
        postgres_bin, base_folder, base_folder, base_folder);
    if (as_postgres(command) != 0)
        return -1;
    (void)snprintf(command, sizeof command, "chmod 755 %s/pg", base_folder);
    return system(command) == 0 ? 0 : -1;
}

static int stop_databases(void **state)
{
    (void)state;
    char command[400];
    if (*postgres_bin) {
        (void)snprintf(command, sizeof command, "%s/pg_ctl -D %s/pg/data -m immediate stop", postgres_bin,
                       base_folder);
        (void)as_postgres(command);
    }
    (void)snprintf(command, sizeof command, "rm -rf %s", base_folder);
    return system(command) == 0 ? 0 : -1;
}

typedef enum backend { ON_SQLITE, ON_POSTGRES } backend;

/* The name of a fresh, empty database; skips the test when that kind is not there. */
static const char *fresh_database(backend kind)
{
    static char where[300];
    char command[600];
    const int number = ++database_number;
    if (kind == ON_SQLITE) {
        (void)snprintf(where, sizeof where, "%s/accounts-%d.db", base_folder, number);
        return where;
    }
    if (!*postgres_bin) {
        print_message("PostgreSQL is not installed (package postgresql)\n");
        skip();
    }
    (void)snprintf(command, sizeof command, "%s/createdb -h %s/pg -U postgres retort%d", postgres_bin,
                   base_folder, number);
    assert_int_equal(as_postgres(command), 0);
    (void)snprintf(where, sizeof where, "postgres:///retort%d?host=%s/pg&user=postgres", number, base_folder);
    return where;
}

static const rt_admin full_admin = {.role = RT_ROLE_FULL, .name = "test"};

/* A call that must be answered with `http`; the body, owned by the caller. */
__attribute__((unused)) static json_t *desk_call(rt_desk *desk, int http, const char *method,
                                                 const char *path, const char *query, json_t *body)
{
    rt_desk_reply reply = rt_admin_call(desk, &full_admin, method, path, query, body);
    json_decref(body);
    if (reply.http != http) {
        char *text = json_dumps(reply.body, 0);
        print_message("%s %s: %d, not %d: %s\n", method, path, reply.http, http, text);
        free(text);
    }
    assert_int_equal(reply.http, http);
    assert_non_null(reply.body);
    return reply.body;
}

typedef struct client {
    char account[40], key[24], secret[100];
} client;

/* An account with these limits (takes the reference; NULL: none) and one key. */
__attribute__((unused)) static client make_client(rt_desk *desk, json_t *limits)
{
    client out = {0};
    char path[100];
    json_t *account = desk_call(desk, 201, "POST", "/admin/v1/accounts", NULL,
                                json_pack("{s:s, s:o*}", "name", "test", "limits", limits));
    (void)snprintf(out.account, sizeof out.account, "%s", json_string_value(json_object_get(account, "id")));
    json_decref(account);
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/keys", out.account);
    json_t *key = desk_call(desk, 201, "POST", path, NULL, json_pack("{s:s}", "name", "k"));
    (void)snprintf(out.key, sizeof out.key, "%s", json_string_value(json_object_get(key, "id")));
    (void)snprintf(out.secret, sizeof out.secret, "%s", json_string_value(json_object_get(key, "secret")));
    json_decref(key);
    return out;
}

__attribute__((unused)) static rt_desk *open_desk(const char *where)
{
    rt_desk *desk = NULL;
    rt_error err = {0};
    if (rt_desk_open(&desk, where, secrets_path, &err) != RT_OK)
        fail_msg("%s", err.text);
    return desk;
}

__attribute__((unused)) static rt_gate *open_gate(const char *where, const rt_time_source *clock)
{
    rt_gate *gate = NULL;
    rt_error err = {0};
    rt_gate_options options = {.db = where, .secrets = secrets_path};
    if (clock)
        options.clock = *clock;
    if (rt_gate_open(&gate, &options, &err) != RT_OK)
        fail_msg("%s", err.text);
    return gate;
}

__attribute__((unused)) static int64_t query_int(const char *where, const char *sql)
{
    rt_db *db = NULL;
    rt_error err = {0};
    int64_t out = 0;
    bool found;
    if (rt_db_open(&db, where, &err) != RT_OK || rt_db_get_int(db, sql, NULL, 0, &out, &found, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_db_close(db);
    return out;
}

#endif
