/* account/gate_internal.h - what the files gate*.c share.
 *
 * One mutex guards the tables of accounts and keys and the meters in them; with SQLite the connection `db`
 * too, and it is never held while waiting for the disk.  With PostgreSQL nobody holds it while the database
 * is asked: db_mutex, taken before it, guards the connection, and the tables change under both.  The writer
 * thread has a connection of its own, which who settles may use while it sleeps, and its own mutex for the
 * queue.  Entries live as long as the gate. */
#ifndef RT_ACCOUNT_GATE_INTERNAL_H
#define RT_ACCOUNT_GATE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "account/admin.h"
#include "account/db.h"
#include "account/gate.h"
#include "account/ledger.h"
#include "account/meter.h"
#include "account/refuse.h"
#include "account/secrets.h"

typedef struct counted { /* how both kinds of entries begin */
    char id[40];
    bool loaded; /* the meter was read */
    rt_meter meter;
} counted;

typedef struct account_entry {
    counted counted;
    char case_id[40], public_reason[256], terms[72];
    rt_account_state state;
    int64_t until; /* 0: no end */
    int64_t created;
    rt_limits limits, throttled;
    rt_permissions permissions;
    json_t *prices; /* NULL: the gate's */
    rt_prompt_policy prompts;
    uint64_t epoch; /* counts reloads */
} account_entry;

typedef struct key_entry {
    counted counted;
    char name[201];
    account_entry *account; /* NULL for an admin key */
    rt_admin_role role;
    unsigned char hash[32];
    rt_limits limits;
    int64_t expires, revoked;  /* 0: never */
    struct caller_box *caller; /* snapshot; NULL when it must be made anew */
    uint64_t caller_epoch;
} key_entry;

typedef struct caller_box {
    rt_caller view; /* first: a caller is its box */
    atomic_int references;
    account_entry *account;
    key_entry *key;
} caller_box;

struct rt_ticket {
    rt_ledger_row row;
    account_entry *account;
    key_entry *key;
    double admitted_s;
    int64_t prompt_tokens, output_tokens; /* reserved */
    json_t *prices;                       /* in force when it was admitted; NULL: none */
    rt_settled_fn done;
    void *context;
    rt_ticket *next; /* in the writer's queue */
};

typedef struct rt_stored { /* an answer for the table `answers`, on its way to the writer */
    struct rt_stored *next;
    char id[65], request[65];
    bool keep, stream;
    size_t size;
    char body[];
} rt_stored;

typedef struct id_map { /* id -> entry, open addressing; an entry begins with its id */
    void **places;
    size_t capacity, count;
} id_map;
void *id_map_get(const id_map *map, const char *id);
bool id_map_put(id_map *map, void *entry);

enum { GUESS_PLACES = 4096 };
typedef struct guess { /* failed keys of one address */
    uint64_t address;
    double used, used_at;
} guess;

struct rt_gate {
    rt_gate_options options;
    char *where, *secrets_path; /* options.secrets is the latter */
    bool shared;                /* PostgreSQL: counters live in the database */
    int lock_fd;                /* SQLite: the server lock */
    rt_secrets secrets;
    uint64_t guess_seed;

    pthread_mutex_t mutex, db_mutex;
    rt_db *db;
    double asked_s,
        silent_until_s;    /* under db_mutex: the database has not answered; nobody waits for it until then */
    atomic_bool elsewhere; /* rt_gate_refresh_elsewhere */
    int64_t generation;
    id_map accounts, keys;
    size_t n_open_accounts;
    guess *guesses;    /* [GUESS_PLACES] */
    int64_t server;    /* id in `servers`, 0 for SQLite */
    uint64_t db_epoch; /* of `db`, when `server` was registered */

    rt_desk *desk;

    pthread_t writer;
    bool writer_started;
    pthread_mutex_t queue_mutex;
    pthread_cond_t queue_filled;
    rt_ticket *first, *last;
    size_t queued;
    rt_ticket *late, *late_last; /* SQLite: rows on the disk that are not in the sums yet, by id */
    size_t n_late;
    double late_since_s;
    pthread_mutex_t record_mutex;
    rt_record_fn on_record;
    void *record_context;
    rt_stored *stored;
    size_t stored_bytes;
    bool closing, lift_expired;
    atomic_bool failing;          /* the last group could not be written: nothing is admitted */
    pthread_mutex_t writer_mutex; /* guards what follows; taken before the queue's */
    rt_db *writer_db;
    int64_t ledger_id;  /* SQLite: the last one given; 0: not known */
    double append_s;    /* how long a row takes, about */
    double wrote_now_s; /* when somebody last settled without the writer */
};

double rt_gate_bucket_s(const rt_gate *gate);
int64_t rt_gate_unix_ms(const rt_gate *gate);
rt_instant rt_gate_now(const rt_gate *gate);

/* gate_load.c.  Reads what has changed since the last time; with the mutex held (SQLite), or inside of
 * rt_gate_ask_begin and without it (PostgreSQL). */
rt_status rt_gate_refresh(rt_gate *gate, rt_error *err);
/* Locks the tables, as new as the database where this thread may ask it; on failure they are as they were,
 * and locked all the same. */
rt_status rt_gate_lock_tables(rt_gate *gate, rt_error *err);
/* PostgreSQL: around whatever uses `db`.  Takes db_mutex; a database that was just silent is not asked again
 * at once: RT_IO and nothing to end then. */
rt_status rt_gate_ask_begin(rt_gate *gate, rt_error *err);
rt_status rt_gate_ask_end(rt_gate *gate, rt_status status);
/* Around changes of the tables that are made inside of these; nothing with SQLite, where the caller has it.
 */
void rt_gate_enter_tables(rt_gate *gate);
void rt_gate_leave_tables(rt_gate *gate);
void rt_gate_drop_tables(rt_gate *gate);
const rt_limits *rt_gate_account_limits(const account_entry *account);

/* gate_writer.c */
rt_status rt_gate_writer_start(rt_gate *gate, rt_error *err);
void rt_gate_writer_stop(rt_gate *gate);
void rt_gate_queue(rt_gate *gate, rt_ticket *ticket);
/* Writes the row in the calling thread if that takes no time to speak of; false: queue it. */
bool rt_gate_write_now(rt_gate *gate, rt_ticket *ticket);

/* stored.c; in the writer's thread */
void rt_stored_write(rt_gate *gate);

enum { RT_GATE_PATIENCE_S = 3, RT_GATE_WRITER_PATIENCE_S = 30 }; /* with PostgreSQL */

/* gate_shared.c; PostgreSQL only. */
/* A connection that was opened anew has lost this server's lock: it is taken again. */
rt_status rt_shared_keep_lock(rt_gate *gate, rt_error *err);
rt_status rt_shared_register(rt_gate *gate, rt_error *err);
/* One transaction: the same decision as with SQLite, on meters in the database.  RT_OK with *admitted false
 * when refused; a status when the database failed.  more: for a request that runs; NULL: it is admitted. */
rt_status rt_shared_admit(rt_gate *gate, rt_ticket *ticket, const rt_meter_draw *more, bool *admitted,
                          rt_refusal *refusal, rt_error *err);
/* Gives back what servers that died had reserved. */
rt_status rt_shared_sweep(rt_gate *gate, rt_db *db, rt_error *err);
/* The decision on two meters, which are rolled and, when it passes, changed.  more: as rt_shared_admit. */
bool rt_gate_decide(rt_gate *gate, const rt_ticket *ticket, const rt_meter_draw *more, rt_meter *account,
                    rt_meter *key, rt_refusal *refusal);

#endif
