// The Go driver. See ../README.md for the cells and the line protocol.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/version"
)

const cursorNotFound = 43

var (
	ctx   = context.Background()
	input = bufio.NewScanner(os.Stdin)
)

func main() {
	client := connect(os.Args[1])
	plain := connect(os.Args[2]).Database("scenario")
	s := scenario{client, client.Database("scenario"), plain}
	fmt.Printf("VERSION %s, %s\n", version.Driver, runtime.Version())
	cell("connect", s.connect)
	cell("crud", s.crud)
	cell("retryable-write", s.retryableWrite)
	cell("bulk-write", s.bulkWrite)
	cell("batches", s.batches)
	cell("w0", s.unacknowledged)
	cell("transaction", s.transaction)
	cell("change-stream", s.changeStream)
	cell("idle-pool", s.idlePool)
	cell("open-cursor", s.openCursor)
	cell("open-transaction", s.openTransaction)
	cell("waiting-stream", s.waitingStream)
	must(client.Disconnect(ctx))
	must(plain.Client().Disconnect(ctx))
}

// scenario holds a client as the URI has it, and one that never retries.
type scenario struct {
	client *mongo.Client
	db     *mongo.Database
	plain  *mongo.Database
}

func (s scenario) connect() string {
	must(s.client.Ping(ctx, nil))
	equal(count(s.db.Collection("things"), bson.M{}), 0)
	return "ok"
}

func (s scenario) crud() string {
	things := s.db.Collection("things")
	insert(things, 1)
	updated, err := things.UpdateOne(ctx, bson.M{"_id": 1}, bson.M{"$inc": bson.M{"n": 1}})
	must(err)
	equal(updated.ModifiedCount, 1)
	equal(count(things, bson.M{"n": 1}), 1)
	deleted, err := things.DeleteOne(ctx, bson.M{"_id": 1})
	must(err)
	equal(deleted.DeletedCount, 1)
	return "ok"
}

func (s scenario) retryableWrite() string {
	insert(s.db.Collection("things"), 2)
	// A server remembers the last retryable write of each session.
	if count(s.client.Database("config").Collection("transactions"), bson.M{}) == 0 {
		panic("the write was none that may be retried")
	}
	return "ok"
}

func (s scenario) bulkWrite() string {
	many := s.db.Collection("many")
	var models []mongo.WriteModel
	for n := 0; n < 100; n++ {
		models = append(models, mongo.NewInsertOneModel().SetDocument(bson.M{"_id": n}))
	}
	_, err := many.BulkWrite(ctx, models)
	must(err)
	result, err := many.BulkWrite(ctx, []mongo.WriteModel{
		mongo.NewInsertOneModel().SetDocument(bson.M{"_id": 100}),
		mongo.NewUpdateOneModel().SetFilter(bson.M{"_id": 0}).SetUpdate(bson.M{"$set": bson.M{"x": 1}}),
	})
	must(err)
	equal(result.InsertedCount, 1)
	equal(result.ModifiedCount, 1)
	return "ok"
}

func (s scenario) batches() string {
	cursor := sorted(s.db)
	for n := int32(0); cursor.Next(ctx); n++ {
		equal(int64(id(cursor)), int64(n))
	}
	must(cursor.Err())
	return "ok"
}

func (s scenario) unacknowledged() string {
	things := s.db.Collection("things")
	silent, err := things.Clone(options.Collection().SetWriteConcern(writeconcern.New(writeconcern.W(0))))
	must(err)
	if _, err := silent.InsertOne(ctx, bson.M{"_id": "w0"}); err != nil && err != mongo.ErrUnacknowledgedWrite {
		panic(err)
	}
	eventually(func() bool { return count(things, bson.M{"_id": "w0"}) == 1 })
	return "ok"
}

func (s scenario) insertTwice(name string, between func()) error {
	return s.client.UseSession(ctx, func(session mongo.SessionContext) error {
		if err := session.StartTransaction(); err != nil {
			return err
		}
		things := s.db.Collection("things")
		if _, err := things.InsertOne(session, bson.M{"_id": name + " 1"}); err != nil {
			return err
		}
		between()
		if _, err := things.InsertOne(session, bson.M{"_id": name + " 2"}); err != nil {
			return err
		}
		return session.CommitTransaction(session)
	})
}

func (s scenario) transaction() string {
	must(s.insertTwice("transaction", func() {}))
	equal(count(s.db.Collection("things"), bson.M{"_id": bson.M{"$regex": "^transaction"}}), 2)
	return "ok"
}

// watched inserts three events, of which the stream must show each once and in order.
func (s scenario) watched(name string, between func()) {
	events := s.db.Collection("events")
	stream, err := events.Watch(ctx, mongo.Pipeline{})
	must(err)
	seen := make(chan string, 10)
	go func() {
		defer close(seen)
		for stream.Next(ctx) {
			seen <- stream.Current.Lookup("documentKey", "_id").StringValue()
		}
		if err := stream.Err(); err != nil {
			seen <- err.Error()
		}
	}()
	wanted := func(n int) string { return fmt.Sprintf("%s %d", name, n) }
	see := func(n int) {
		select {
		case found := <-seen:
			if found != wanted(n) {
				panic("the stream says: " + found)
			}
		case <-time.After(30 * time.Second):
			panic("the stream says nothing")
		}
	}
	insert(events, wanted(0))
	see(0)
	between()
	insert(events, wanted(1))
	insert(events, wanted(2))
	see(1)
	see(2)
	// Not closed: in this driver that waits for its Next, which waits for the next event.
}

func (s scenario) changeStream() string {
	s.watched("stream", func() {})
	return "ok"
}

func (s scenario) idlePool() string {
	var waiting sync.WaitGroup
	for n := 0; n < 5; n++ {
		waiting.Add(1)
		go func() {
			s.plain.Collection("many").FindOne(ctx, bson.M{})
			waiting.Done()
		}()
	}
	waiting.Wait()
	suspend()
	insert(s.plain.Collection("things"), "after the nap")
	equal(count(s.plain.Collection("things"), bson.M{"_id": "after the nap"}), 1)
	suspend()
	equal(count(s.plain.Collection("many"), bson.M{}), 101)
	return "ok"
}

func (s scenario) openCursor() string {
	cursor := sorted(s.plain)
	next := int32(0)
	for ; cursor.Next(ctx); next++ {
		equal(int64(id(cursor)), int64(next))
		if next == 0 {
			suspend()
		}
	}
	var failure mongo.CommandError
	if errors.As(cursor.Err(), &failure) && failure.Code == cursorNotFound {
		equal(count(s.plain.Collection("many"), bson.M{}), 101)
		return "CursorNotFound"
	}
	must(cursor.Err())
	equal(int64(next), 101)
	return "completes"
}

func (s scenario) openTransaction() string {
	var failure mongo.ServerError
	err := s.insertTwice("reopened", suspend)
	if !errors.As(err, &failure) || !failure.HasErrorLabel("TransientTransactionError") {
		return fmt.Sprint("failed: ", err)
	}
	must(s.insertTwice("reopened", func() {}))
	return "TransientTransactionError"
}

func (s scenario) waitingStream() string {
	s.watched("waiting", suspend)
	return "resumes"
}

func connect(uri string) *mongo.Client {
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
	must(err)
	return client
}

func insert(collection *mongo.Collection, id interface{}) {
	_, err := collection.InsertOne(ctx, bson.M{"_id": id})
	must(err)
}

func count(collection *mongo.Collection, filter bson.M) int64 {
	found, err := collection.CountDocuments(ctx, filter)
	must(err)
	return found
}

func sorted(db *mongo.Database) *mongo.Cursor {
	order := options.Find().SetSort(bson.M{"_id": 1}).SetBatchSize(10)
	cursor, err := db.Collection("many").Find(ctx, bson.M{}, order)
	must(err)
	return cursor
}

func id(cursor *mongo.Cursor) int32 { return cursor.Current.Lookup("_id").Int32() }

func suspend() {
	fmt.Println("SUSPEND")
	if !input.Scan() || input.Text() != "done" {
		os.Exit(1)
	}
}

func cell(name string, work func() string) {
	defer func() {
		if failure := recover(); failure != nil {
			text := strings.Join(strings.Fields(fmt.Sprint(failure)), " ")
			fmt.Printf("CELL %s failed: %s\n", name, text)
		}
	}()
	fmt.Printf("CELL %s %s\n", name, work())
}

func eventually(ask func() bool) {
	for deadline := time.Now().Add(20 * time.Second); !ask(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic("not within 20 s")
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(found, wanted int64) {
	if found != wanted {
		panic(fmt.Sprintf("%d instead of %d", found, wanted))
	}
}
