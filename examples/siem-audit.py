#!/usr/bin/env python3
"""Finds gaps in a file of Tetragon events that tetracast sent with --json-sequence.

    siem-audit.py EVENTS.jsonl [SIEM-AUDIT.md]

It runs the SQL of docs/siem-audit.md, which is read from that page.
"""
import json
import pathlib
import re
import sqlite3
import sys


def rows(lines):
    for line in lines:
        try:
            place = json.loads(line).get("tetracast")
        except ValueError:
            continue  # somebody else's line
        if place and "seq" in place:
            yield place["stream"], place["seq"], place["dropped"]


def main():
    page = sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent / "../docs/siem-audit.md"
    totals, gaps = re.findall(r"```sql\n(.*?)```", pathlib.Path(page).read_text(), re.S)
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE events (stream TEXT, seq INTEGER, dropped INTEGER)")
    with open(sys.argv[1], encoding="utf-8") as lines:
        db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows(lines))
    for stream, arrived, missing, lost_before, twice in db.execute(totals):
        print(f"{stream}: arrived {arrived}, missing {missing}, lost before {lost_before}, twice {twice}")
    for stream, first, last in db.execute(gaps):
        print(f"{stream}: missing {first} to {last}")


if __name__ == "__main__":
    main()
