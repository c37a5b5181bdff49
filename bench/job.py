"""The job that ours is compared with: three steps, each one transaction that writes a task and its event."""

from typing import Any

import asyncpg

STEPS = 3
POOL = 10
"""Connections of a worker, as many as one of ours has."""

_SCHEMA = """
CREATE TABLE tasks (
  job bigint NOT NULL, step integer NOT NULL, title text NOT NULL, created_at timestamptz NOT NULL,
  PRIMARY KEY (job, step));
CREATE TABLE events (
  id uuid PRIMARY KEY DEFAULT uuidv7(), type text NOT NULL, job bigint NOT NULL, step integer NOT NULL,
  after jsonb NOT NULL, at timestamptz NOT NULL);
"""
_EFFECT = """
WITH made AS (
  INSERT INTO tasks VALUES ($1, $2, 'Call back', clock_timestamp()) ON CONFLICT DO NOTHING RETURNING *)
INSERT INTO events (type, job, step, after, at)
SELECT 'task.created', job, step, jsonb_build_object('title', title), created_at FROM made
"""
DONE = "SELECT count(*) FROM tasks WHERE step = $1"
"""Jobs that have taken a step."""


async def make_tables(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(_SCHEMA)
    await connection.close()


async def effect(pool: Any, job: int, step: int) -> None:  # noqa: ANN401  (asyncpg has no types)
    """One step: once, however often it is tried."""
    await pool.execute(_EFFECT, job, step)
