/* libmongoc. See ../README.md for the cells and the line protocol.
 * One thread, so its stream is asked again and again instead of waiting. */

#include <mongoc/mongoc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CURSOR_NOT_FOUND 43

typedef struct {
    mongoc_client_t *client;
    mongoc_collection_t *things, *many, *events;
} side_t;

/* As the URI has it, and one that never retries. */
static side_t ours, plain;
static char failure[1024];

static bool fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure, sizeof failure, format, arguments);
    va_end(arguments);
    for (char *at = failure; *at; at++) {
        if (*at == '\n') *at = ' ';
    }
    return false;
}

#define CHECK(condition) \
    do { \
        if (!(condition)) return fail("line %d: %s", __LINE__, #condition); \
    } while (0)
#define DO(call) \
    do { \
        bson_error_t error = {0}; \
        if (!(call)) return fail("line %d: %s", __LINE__, error.message); \
    } while (0)

static void cell(const char *name, bool (*work)(const char **)) {
    const char *result = "ok";
    if (work(&result)) {
        printf("CELL %s %s\n", name, result);
    } else {
        printf("CELL %s failed: %s\n", name, failure);
    }
}

static void await_suspend(void) {
    char answer[16];
    puts("SUSPEND");
    if (!fgets(answer, sizeof answer, stdin) || strcmp(answer, "done\n")) exit(1);
}

static side_t connect_to(const char *uri) {
    side_t side = {.client = mongoc_client_new(uri)};
    if (!side.client) {
        fprintf(stderr, "cannot read %s\n", uri);
        exit(1);
    }
    mongoc_client_set_error_api(side.client, MONGOC_ERROR_API_VERSION_2);
    side.things = mongoc_client_get_collection(side.client, "scenario", "things");
    side.many = mongoc_client_get_collection(side.client, "scenario", "many");
    side.events = mongoc_client_get_collection(side.client, "scenario", "events");
    return side;
}

static bool insert(mongoc_collection_t *into, const char *id, const bson_t *options,
                   bson_error_t *error, bson_t *reply) {
    bson_t *document = BCON_NEW("_id", BCON_UTF8(id));
    bson_t own;
    bool done = mongoc_collection_insert_one(into, document, options, reply ? reply : &own, error);
    if (!reply) bson_destroy(&own);
    bson_destroy(document);
    return done;
}

static int64_t count(mongoc_collection_t *of, const bson_t *filter) {
    bson_error_t error;
    const bson_t all = BSON_INITIALIZER;
    int64_t found = mongoc_collection_count_documents(of, filter ? filter : &all, NULL, NULL, NULL, &error);
    if (found < 0) fail("count: %s", error.message);
    return found;
}

static bool connects(const char **result) {
    (void)result;
    bson_t *ping = BCON_NEW("ping", BCON_INT32(1));
    DO(mongoc_client_command_simple(ours.client, "admin", ping, NULL, NULL, &error));
    bson_destroy(ping);
    CHECK(count(ours.things, NULL) == 0);
    return true;
}

static bool crud(const char **result) {
    (void)result;
    bson_t *one = BCON_NEW("_id", "one");
    bson_t *set = BCON_NEW("$set", "{", "n", BCON_INT32(2), "}");
    bson_t *wanted = BCON_NEW("_id", "one", "n", BCON_INT32(2));
    DO(insert(ours.things, "one", NULL, &error, NULL));
    DO(mongoc_collection_update_one(ours.things, one, set, NULL, NULL, &error));
    CHECK(count(ours.things, wanted) == 1);
    DO(mongoc_collection_delete_one(ours.things, one, NULL, NULL, &error));
    CHECK(count(ours.things, NULL) == 0);
    bson_destroy(one);
    bson_destroy(set);
    bson_destroy(wanted);
    return true;
}

static bool retryable_write(const char **result) {
    (void)result;
    DO(insert(ours.things, "retryable", NULL, &error, NULL));
    /* A server remembers the last retryable write of each session. */
    mongoc_collection_t *remembered = mongoc_client_get_collection(ours.client, "config", "transactions");
    CHECK(count(remembered, NULL) > 0);
    mongoc_collection_destroy(remembered);
    return true;
}

static bool bulk_write(const char **result) {
    (void)result;
    mongoc_bulk_operation_t *bulk = mongoc_collection_create_bulk_operation_with_opts(ours.many, NULL);
    for (int32_t n = 0; n < 101; n++) {
        bson_t *document = BCON_NEW("_id", BCON_INT32(n));
        DO(mongoc_bulk_operation_insert_with_opts(bulk, document, NULL, &error));
        bson_destroy(document);
    }
    bson_t *first = BCON_NEW("_id", BCON_INT32(0));
    bson_t *set = BCON_NEW("$set", "{", "x", BCON_INT32(1), "}");
    DO(mongoc_bulk_operation_update_one_with_opts(bulk, first, set, NULL, &error));
    DO(mongoc_bulk_operation_execute(bulk, NULL, &error));
    CHECK(count(ours.many, NULL) == 101);
    mongoc_bulk_operation_destroy(bulk);
    bson_destroy(first);
    bson_destroy(set);
    return true;
}

static mongoc_cursor_t *sorted(mongoc_collection_t *many) {
    bson_t all = BSON_INITIALIZER;
    bson_t *options = BCON_NEW("sort", "{", "_id", BCON_INT32(1), "}", "batchSize", BCON_INT32(10));
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(many, &all, options, NULL);
    bson_destroy(options);
    return cursor;
}

/* Reads on from the number `next`; gives the number after the last one. */
static int32_t read_on(mongoc_cursor_t *cursor, int32_t next, int32_t until) {
    const bson_t *document;
    bson_iter_t id;
    while (next < until && mongoc_cursor_next(cursor, &document)) {
        if (!bson_iter_init_find(&id, document, "_id") || bson_iter_int32(&id) != next) return -1;
        next++;
    }
    return next;
}

static bool batches(const char **result) {
    (void)result;
    mongoc_cursor_t *cursor = sorted(ours.many);
    CHECK(read_on(cursor, 0, INT32_MAX) == 101);
    DO(!mongoc_cursor_error(cursor, &error));
    mongoc_cursor_destroy(cursor);
    return true;
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static bool unacknowledged(const char **result) {
    (void)result;
    bson_t *options = BCON_NEW("writeConcern", "{", "w", BCON_INT32(0), "}");
    bson_t *one = BCON_NEW("_id", "w0");
    DO(insert(ours.things, "w0", options, &error, NULL));
    for (time_t end = time(NULL) + 20; count(ours.things, one) != 1; pause_ms(50)) {
        CHECK(time(NULL) < end);
    }
    bson_destroy(options);
    bson_destroy(one);
    return true;
}

static void nothing(void) {}

static bool insert_twice(const char *name, void (*between)(void), bson_t *reply) {
    char id[64];
    bson_t options = BSON_INITIALIZER;
    bson_error_t error = {0};
    bson_init(reply);
    mongoc_client_session_t *session = mongoc_client_start_session(ours.client, NULL, &error);
    bool done = session && mongoc_client_session_start_transaction(session, NULL, &error) &&
                mongoc_client_session_append(session, &options, &error);
    for (int n = 1; done && n <= 2; n++) {
        snprintf(id, sizeof id, "%s %d", name, n);
        bson_destroy(reply);
        done = insert(ours.things, id, &options, &error, reply);
        if (done && n == 1) between();
    }
    if (done) {
        bson_destroy(reply);
        done = mongoc_client_session_commit_transaction(session, reply, &error);
    }
    mongoc_client_session_destroy(session);
    bson_destroy(&options);
    return done || fail("%s", error.message);
}

static bool transaction(const char **result) {
    (void)result;
    bson_t reply;
    bson_t *both = BCON_NEW("_id", "{", "$regex", "^transaction", "}");
    bool done = insert_twice("transaction", nothing, &reply);
    bson_destroy(&reply);
    CHECK(!done || count(ours.things, both) == 2);
    bson_destroy(both);
    return done;
}

/* Waits until the stream shows the event of this name, and nothing before it. */
static bool see(mongoc_change_stream_t *stream, const char *wanted) {
    const bson_t *event, *reply;
    bson_iter_t iter, id;
    for (time_t end = time(NULL) + 30; time(NULL) < end;) {
        if (mongoc_change_stream_next(stream, &event)) {
            CHECK(bson_iter_init(&iter, event) &&
                  bson_iter_find_descendant(&iter, "documentKey._id", &id));
            return !strcmp(bson_iter_utf8(&id, NULL), wanted) ||
                   fail("%s instead of %s", bson_iter_utf8(&id, NULL), wanted);
        }
        DO(!mongoc_change_stream_error_document(stream, &error, &reply));
    }
    return fail("the stream says nothing");
}

/* Inserts three events, of which the stream must show each once and in order. */
static bool watched(const char *name, void (*between)(void)) {
    char id[3][64];
    bson_t pipeline = BSON_INITIALIZER;
    mongoc_change_stream_t *stream = mongoc_collection_watch(ours.events, &pipeline, NULL);
    for (int n = 0; n < 3; n++) {
        snprintf(id[n], sizeof id[n], "%s %d", name, n);
        DO(insert(ours.events, id[n], NULL, &error, NULL));
        if (n == 0) {
            if (!see(stream, id[0])) return false;
            between();
        }
    }
    bool seen = see(stream, id[1]) && see(stream, id[2]);
    mongoc_change_stream_destroy(stream);
    return seen;
}

static bool change_stream(const char **result) {
    (void)result;
    return watched("stream", nothing);
}

static bool idle_pool(const char **result) {
    (void)result;
    CHECK(count(plain.many, NULL) == 101);
    await_suspend();
    DO(insert(plain.things, "after the nap", NULL, &error, NULL));
    await_suspend();
    CHECK(count(plain.many, NULL) == 101);
    return true;
}

static bool open_cursor(const char **result) {
    bson_error_t error;
    mongoc_cursor_t *cursor = sorted(plain.many);
    CHECK(read_on(cursor, 0, 1) == 1);
    await_suspend();
    int32_t next = read_on(cursor, 1, INT32_MAX);
    if (mongoc_cursor_error(cursor, &error)) {
        if (error.code != CURSOR_NOT_FOUND) return fail("%s", error.message);
        CHECK(count(plain.many, NULL) == 101);
        *result = "CursorNotFound";
    } else {
        CHECK(next == 101);
        *result = "completes";
    }
    mongoc_cursor_destroy(cursor);
    return true;
}

static bool open_transaction(const char **result) {
    bson_t reply;
    if (insert_twice("reopened", await_suspend, &reply)) return fail("no error");
    bool transient = mongoc_error_has_label(&reply, "TransientTransactionError");
    bson_destroy(&reply);
    if (!transient || !insert_twice("reopened", nothing, &reply)) return false;
    bson_destroy(&reply);
    *result = "TransientTransactionError";
    return true;
}

static bool waiting_stream(const char **result) {
    *result = "resumes";
    return watched("waiting", await_suspend);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    mongoc_init();
    ours = connect_to(argv[1]);
    plain = connect_to(argv[2]);
    printf("VERSION %s, C\n", mongoc_get_version());
    cell("connect", connects);
    cell("crud", crud);
    cell("retryable-write", retryable_write);
    cell("bulk-write", bulk_write);
    cell("batches", batches);
    cell("w0", unacknowledged);
    cell("transaction", transaction);
    cell("change-stream", change_stream);
    cell("idle-pool", idle_pool);
    cell("open-cursor", open_cursor);
    cell("open-transaction", open_transaction);
    cell("waiting-stream", waiting_stream);
    /* The process ends here, and what it holds with it. */
    return 0;
}
