import com.mongodb.MongoClient;
import com.mongodb.MongoClientURI;
import com.mongodb.MongoCursorNotFoundException;
import com.mongodb.WriteConcern;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.MongoCursor;
import com.mongodb.client.MongoDatabase;
import com.mongodb.client.model.InsertOneModel;
import com.mongodb.client.model.UpdateOneModel;
import com.mongodb.client.model.WriteModel;
import com.mongodb.bulk.BulkWriteResult;
import com.mongodb.client.model.changestream.ChangeStreamDocument;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.bson.Document;

/** The Java driver, 3.6: it has no transactions yet. See ../README.md for the cells and the line protocol. */
public final class Scenario {
    private static final BufferedReader INPUT = new BufferedReader(new InputStreamReader(System.in));

    private final MongoClient client;
    private final MongoDatabase db;
    private final MongoClient plainClient;
    private final MongoDatabase plain;

    private Scenario(String uri, String plainUri) {
        // This driver retries writes only where it is asked to.
        client = new MongoClient(new MongoClientURI(uri + "&retryWrites=true"));
        db = client.getDatabase("scenario");
        plainClient = new MongoClient(new MongoClientURI(plainUri));
        plain = plainClient.getDatabase("scenario");
    }

    public static void main(String[] arguments) throws Exception {
        Logger.getLogger("org.mongodb.driver").setLevel(Level.SEVERE);
        Scenario scenario = new Scenario(arguments[0], arguments[1]);
        System.out.printf("VERSION %s, Java %s%n", driverVersion(), System.getProperty("java.version"));
        cell("connect", scenario::connect);
        cell("crud", scenario::crud);
        cell("retryable-write", scenario::retryableWrite);
        cell("bulk-write", scenario::bulkWrite);
        cell("batches", scenario::batches);
        cell("w0", scenario::unacknowledged);
        cell("transaction", () -> "has none");
        cell("change-stream", scenario::changeStream);
        cell("idle-pool", scenario::idlePool);
        cell("open-cursor", scenario::openCursor);
        cell("open-transaction", () -> "has none");
        cell("waiting-stream", scenario::waitingStream);
        System.exit(0);
    }

    /** The driver does not know its version; Debian's name for its jar has it. */
    private static String driverVersion() throws Exception {
        Path jar = Paths.get(MongoClient.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        return jar.toRealPath().getFileName().toString().replaceAll("[^0-9]*([0-9.]+)\\.jar", "$1");
    }

    private String connect() {
        equal(client.getDatabase("admin").runCommand(new Document("ping", 1)).getDouble("ok"), 1.0);
        equal(db.getCollection("things").count(), 0L);
        return "ok";
    }

    private String crud() {
        MongoCollection<Document> things = db.getCollection("things");
        Document one = new Document("_id", 1);
        things.insertOne(new Document("_id", 1).append("n", 1));
        Document increment = new Document("$inc", new Document("n", 1));
        equal(things.updateOne(one, increment).getModifiedCount(), 1L);
        equal(things.find(one).first().getInteger("n"), 2);
        equal(things.deleteOne(one).getDeletedCount(), 1L);
        return "ok";
    }

    private String retryableWrite() {
        db.getCollection("things").insertOne(new Document("_id", 2));
        // A server remembers the last retryable write of each session.
        long remembered = client.getDatabase("config").getCollection("transactions").count();
        check(remembered > 0, "the write was none that may be retried");
        return "ok";
    }

    private String bulkWrite() {
        MongoCollection<Document> many = db.getCollection("many");
        List<WriteModel<Document>> models = new ArrayList<>();
        for (int n = 0; n < 100; n++) {
            models.add(new InsertOneModel<>(new Document("_id", n)));
        }
        many.bulkWrite(models);
        Document set = new Document("$set", new Document("x", 1));
        BulkWriteResult result = many.bulkWrite(Arrays.asList(
                new InsertOneModel<>(new Document("_id", 100)),
                new UpdateOneModel<>(new Document("_id", 0), set)));
        equal(result.getInsertedCount(), 1);
        equal(result.getModifiedCount(), 1);
        return "ok";
    }

    private String batches() {
        int next = 0;
        for (MongoCursor<Document> cursor = sorted(db); cursor.hasNext(); next++) {
            equal(cursor.next().getInteger("_id"), next);
        }
        equal(next, 101);
        return "ok";
    }

    private String unacknowledged() throws Exception {
        Document one = new Document("_id", "w0");
        MongoCollection<Document> things = db.getCollection("things");
        things.withWriteConcern(WriteConcern.UNACKNOWLEDGED).insertOne(one);
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (things.count(one) == 0) {
            check(System.nanoTime() < deadline, "not within 20 s");
            Thread.sleep(50);
        }
        return "ok";
    }

    /** Inserts three events, of which the stream must show each once and in order. */
    private void watched(String name, Callable<?> between) throws Exception {
        MongoCollection<Document> events = db.getCollection("events");
        MongoCursor<ChangeStreamDocument<Document>> stream = events.watch().iterator();
        BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        Thread watcher = new Thread(() -> {
            try {
                while (true) {
                    seen.add(stream.next().getDocumentKey().getString("_id").getValue());
                }
            } catch (RuntimeException failure) {
                seen.add(failure.toString());
            }
        });
        // Its last call waits for an event that never comes.
        watcher.setDaemon(true);
        watcher.start();
        for (int n = 0; n < 3; n++) {
            events.insertOne(new Document("_id", name + " " + n));
            if (n == 0) {
                equal(seen.poll(30, TimeUnit.SECONDS), name + " " + n);
                between.call();
            }
        }
        equal(seen.poll(30, TimeUnit.SECONDS), name + " 1");
        equal(seen.poll(30, TimeUnit.SECONDS), name + " 2");
    }

    private String changeStream() throws Exception {
        watched("stream", () -> null);
        return "ok";
    }

    private String idlePool() throws Exception {
        List<Thread> readers = new ArrayList<>();
        for (int n = 0; n < 5; n++) {
            Thread reader = new Thread(() -> plain.getCollection("many").find().first());
            reader.start();
            readers.add(reader);
        }
        for (Thread reader : readers) {
            reader.join();
        }
        suspend();
        plain.getCollection("things").insertOne(new Document("_id", "after the nap"));
        equal(plain.getCollection("things").count(new Document("_id", "after the nap")), 1L);
        suspend();
        equal(plain.getCollection("many").count(), 101L);
        return "ok";
    }

    private String openCursor() throws Exception {
        MongoCursor<Document> cursor = sorted(plain);
        equal(cursor.next().getInteger("_id"), 0);
        suspend();
        int next = 1;
        try {
            for (; cursor.hasNext(); next++) {
                equal(cursor.next().getInteger("_id"), next);
            }
        } catch (MongoCursorNotFoundException e) {
            equal(plain.getCollection("many").count(), 101L);
            return "CursorNotFound";
        }
        equal(next, 101);
        return "completes";
    }

    private String waitingStream() throws Exception {
        watched("waiting", () -> {
            suspend();
            return null;
        });
        return "resumes";
    }

    private static MongoCursor<Document> sorted(MongoDatabase db) {
        return db.getCollection("many").find().sort(new Document("_id", 1)).batchSize(10).iterator();
    }

    private static void suspend() throws Exception {
        System.out.println("SUSPEND");
        if (!"done".equals(INPUT.readLine())) {
            System.exit(1);
        }
    }

    private static void cell(String name, Callable<String> work) {
        String result;
        try {
            result = work.call();
        } catch (Exception | AssertionError failure) {
            result = "failed: " + failure;
        }
        System.out.println("CELL " + name + " " + result.replaceAll("\\s+", " "));
    }

    private static void equal(Object found, Object wanted) {
        check(wanted.equals(found), found + " instead of " + wanted);
    }

    private static void check(boolean holds, String failure) {
        if (!holds) {
            throw new AssertionError(failure);
        }
    }
}
