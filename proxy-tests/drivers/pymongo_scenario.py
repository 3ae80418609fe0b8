"""The demo scenario's reads and writes, through PyMongo. Run by tests/pymongo.rs, which does the
rest of the scenario between the steps: it writes a step's name on stdin, this does it and answers
with one line of JSON. The client is made once and never again.
"""

import json
import sys

import pymongo
from pymongo import MongoClient


def main() -> None:
    client = MongoClient(sys.argv[1])
    changes = client.demo.changes
    for line in sys.stdin:
        step, _, argument = line.strip().partition(" ")
        if step == "version":
            answer = pymongo.version
        elif step == "insert":
            changes.insert_one({"text": argument})
            answer = argument
        elif step == "changes":
            answer = [one["text"] for one in changes.find().sort("_id")]
        elif step == "base":
            answer = {
                f"{database}.{collection}": client[database][collection].count_documents({})
                for database in client.list_database_names()
                if database not in ("admin", "config", "local", "demo")
                for collection in client[database].list_collection_names()
                if not collection.startswith("system.")
            }
        elif step == "transaction":
            with client.start_session() as session:
                with session.start_transaction():
                    changes.insert_one({"text": argument}, session=session)
                    changes.update_one({"text": argument}, {"$set": {"in": 1}}, session=session)
            answer = changes.count_documents({"in": 1})
        elif step == "elsewhere":
            with MongoClient(argument) as other:
                answer = [one["text"] for one in other.demo.changes.find().sort("_id")]
        else:
            raise ValueError(f"unknown step {step!r}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
