<?php
// PHP's extension. See ../README.md for the cells and the line protocol.
// Change streams that resume are the library's (PECL's extension has only the commands), so this
// program resumes as that library does: after the last token, on CursorNotFound.

declare(strict_types=1);

use MongoDB\BSON\Regex;
use MongoDB\Driver\BulkWrite;
use MongoDB\Driver\Command;
use MongoDB\Driver\Cursor;
use MongoDB\Driver\Exception\CommandException;
use MongoDB\Driver\Exception\RuntimeException as DriverException;
use MongoDB\Driver\Manager;
use MongoDB\Driver\Query;
use MongoDB\Driver\WriteConcern;

const CURSOR_NOT_FOUND = 43;

function say(string ...$words): void
{
    fwrite(STDOUT, implode(' ', $words) . "\n");
}

function suspend(): void
{
    say('SUSPEND');
    if (fgets(STDIN) !== "done\n") {
        exit(1);
    }
}

function cell(string $name, callable $work): void
{
    try {
        $result = $work();
    } catch (Throwable $error) {
        $result = 'failed: ' . get_class($error) . ': ' . $error->getMessage();
    }
    say('CELL', $name, preg_replace('/\s+/', ' ', $result));
}

function same(mixed $found, mixed $wanted): void
{
    if ($found !== $wanted) {
        throw new LogicException(json_encode($found) . ' instead of ' . json_encode($wanted));
    }
}

function write(Manager $to, string $collection, callable $fill, array $options = [])
{
    $bulk = new BulkWrite();
    $fill($bulk);
    return $to->executeBulkWrite("scenario.$collection", $bulk, $options);
}

function insert(Manager $to, string $collection, mixed $id, array $options = [])
{
    return write($to, $collection, fn ($bulk) => $bulk->insert(['_id' => $id]), $options);
}

function find(Manager $in, string $namespace, array $filter = [], array $options = []): Cursor
{
    return $in->executeQuery($namespace, new Query($filter, $options));
}

function ids(iterable $documents): array
{
    $ids = [];
    foreach ($documents as $document) {
        $ids[] = $document->_id;
    }
    return $ids;
}

function insertTwice(Manager $client, string $name, callable $between): void
{
    $session = $client->startSession();
    $session->startTransaction();
    insert($client, 'things', "$name 1", ['session' => $session]);
    $between();
    insert($client, 'things', "$name 2", ['session' => $session]);
    $session->commitTransaction();
}

function watch(Manager $client, ?object $after): Cursor
{
    return $client->executeReadCommand('scenario', new Command([
        'aggregate' => 'events',
        'pipeline' => [['$changeStream' => $after ? ['resumeAfter' => $after] : new stdClass()]],
        'cursor' => new stdClass(),
    ]));
}

/** Inserts three events, of which the stream must show each once and in order. */
function watched(Manager $client, string $name, callable $between): void
{
    $cursor = watch($client, null);
    $cursor->rewind();
    $token = null;
    $seen = [];
    $see = function (int $count) use ($client, &$cursor, &$token, &$seen): void {
        $deadline = microtime(true) + 30;
        while (count($seen) < $count) {
            if (microtime(true) > $deadline) {
                throw new LogicException('the stream says nothing');
            }
            try {
                if ($cursor->valid()) {
                    $seen[] = $cursor->current()->documentKey->_id;
                    $token = $cursor->current()->_id;
                }
                $cursor->next();
            } catch (DriverException $error) {
                if ($error->getCode() !== CURSOR_NOT_FOUND) {
                    throw $error;
                }
                $cursor = watch($client, $token);
                $cursor->rewind();
            }
        }
    };
    $wanted = array_map(fn ($n) => "$name $n", range(0, 2));
    insert($client, 'events', $wanted[0]);
    $see(1);
    $between();
    insert($client, 'events', $wanted[1]);
    insert($client, 'events', $wanted[2]);
    $see(3);
    same($seen, $wanted);
}

$client = new Manager($argv[1]);
$plain = new Manager($argv[2], [], ['disableClientPersistence' => true]);
$sorted = ['sort' => ['_id' => 1], 'batchSize' => 10];
say('VERSION', phpversion('mongodb') . ', PHP ' . PHP_VERSION);

cell('connect', function () use ($client) {
    same($client->executeCommand('admin', new Command(['ping' => 1]))->toArray()[0]->ok, 1.0);
    same(ids(find($client, 'scenario.things')), []);
    return 'ok';
});
cell('crud', function () use ($client) {
    insert($client, 'things', 1);
    $set = ['$set' => ['n' => 2]];
    same(write($client, 'things', fn ($bulk) => $bulk->update(['_id' => 1], $set))->getModifiedCount(), 1);
    same(ids(find($client, 'scenario.things', ['n' => 2])), [1]);
    same(write($client, 'things', fn ($bulk) => $bulk->delete(['_id' => 1]))->getDeletedCount(), 1);
    return 'ok';
});
cell('retryable-write', function () use ($client) {
    insert($client, 'things', 2);
    // A server remembers the last retryable write of each session.
    same(count(find($client, 'config.transactions')->toArray()) > 0, true);
    return 'ok';
});
cell('bulk-write', function () use ($client) {
    $result = write($client, 'many', function ($bulk) {
        foreach (range(0, 100) as $n) {
            $bulk->insert(['_id' => $n]);
        }
        $bulk->update(['_id' => 0], ['$set' => ['x' => 1]]);
    });
    same([$result->getInsertedCount(), $result->getModifiedCount()], [101, 1]);
    return 'ok';
});
cell('batches', function () use ($client, $sorted) {
    same(ids(find($client, 'scenario.many', [], $sorted)), range(0, 100));
    return 'ok';
});
cell('w0', function () use ($client) {
    insert($client, 'things', 'w0', ['writeConcern' => new WriteConcern(0)]);
    for ($deadline = microtime(true) + 20; !ids(find($client, 'scenario.things', ['_id' => 'w0'])); usleep(50000)) {
        same(microtime(true) < $deadline, true);
    }
    return 'ok';
});
cell('transaction', function () use ($client) {
    insertTwice($client, 'transaction', fn () => null);
    same(count(ids(find($client, 'scenario.things', ['_id' => new Regex('^transaction')]))), 2);
    return 'ok';
});
cell('change-stream', function () use ($client) {
    watched($client, 'stream', fn () => null);
    return 'ok';
});
cell('idle-pool', function () use ($plain) {
    same(count(ids(find($plain, 'scenario.many'))), 101);
    suspend();
    insert($plain, 'things', 'after the nap');
    suspend();
    same(count(ids(find($plain, 'scenario.many'))), 101);
    return 'ok';
});
cell('open-cursor', function () use ($plain, $sorted) {
    $cursor = find($plain, 'scenario.many', [], $sorted);
    $cursor->rewind();
    suspend();
    $found = [];
    try {
        for (; $cursor->valid(); $cursor->next()) {
            $found[] = $cursor->current()->_id;
        }
    } catch (DriverException $error) {
        same($error->getCode(), CURSOR_NOT_FOUND);
        same(count(ids(find($plain, 'scenario.many'))), 101);
        return 'CursorNotFound';
    }
    same($found, range(0, 100));
    return 'completes';
});
cell('open-transaction', function () use ($client) {
    try {
        insertTwice($client, 'reopened', 'suspend');
    } catch (DriverException $error) {
        // The extension wraps what the server said of a write.
        for ($cause = $error; $cause; $cause = $cause->getPrevious()) {
            if ($cause instanceof DriverException && $cause->hasErrorLabel('TransientTransactionError')) {
                insertTwice($client, 'reopened', fn () => null);
                return 'TransientTransactionError';
            }
        }
        throw $error;
    }
    return 'failed: no error';
});
cell('waiting-stream', function () use ($client) {
    watched($client, 'waiting', 'suspend');
    return 'resumes';
});
