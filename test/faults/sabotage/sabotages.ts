/** One guard taken out of the code, and what has to notice. */
export interface Sabotage {
  name: string;
  file: string;
  /** Stands exactly once in the file. */
  find: string;
  replace: string;
  /** The test that fails without the guard. */
  test: { file: string; name: string };
  /** How a fault run is made to meet what the guard is for; without it none does, since nothing is pruned in one. */
  run?: string[];
}

export const sabotages: Sabotage[] = [
  {
    name: "the egress check",
    file: "src/replay/slice.ts",
    find: `if (slice.isLost || !outlivesCall(slice)) throw new Error("the lease would not outlive the call");`,
    replace: "void slice;",
    test: {
      file: "test/replay/takeover.test.ts",
      name: "a worker that was stopped for longer than its lease sends and writes nothing",
    },
    run: ["--faults", "stop worker", "--rate", "0.25"],
  },
  {
    name: "the epoch condition",
    file: "src/replay/move-lanes.ts",
    find: " and l.epoch = owned.epoch",
    replace: "",
    test: {
      file: "test/replay/commits.test.ts",
      name: "an owner whose lane was taken over writes nothing",
    },
    run: ["--faults", "stop worker,between send and answer"],
  },
  {
    name: "the take-over resolution",
    file: "src/replay/claim.ts",
    find: "takenOver: row.lease_ended_at === null ? undefined : sentBetween(row.lease_ended_at, leaseMs),",
    replace: "takenOver: undefined,",
    test: {
      file: "test/replay/takeover.test.ts",
      name: "a worker that is killed between its calls and their answers",
    },
    run: ["--faults", "kill worker,between send and answer,between answer and commit"],
  },
  {
    name: "the sweeper",
    file: "src/replay/worker.ts",
    find: "const sweeper = startSweeper(",
    replace: "const sweeper = ((_: unknown) => ({ stop: () => void startSweeper }))(",
    test: { file: "test/replay/lost-words.test.ts", name: "what was accepted while nobody replayed" },
    run: ["--faults", "lose all jobs,kill worker"],
  },
  {
    name: "the claim of records",
    file: "src/replay/record-claim.ts",
    find: "or record_claim.lease_until <= clock_timestamp()",
    replace: "or true",
    test: {
      file: "test/replay/record-claims.test.ts",
      name: "two that change one record: the second looks only when the first has written",
    },
  },
  {
    name: "the re-read of moved records",
    file: "src/replay/commit.ts",
    find: "if (position !== commit.record.begunAt || taken.has(key))",
    replace: "if (taken.has(key))",
    test: { file: "test/replay/conflicts.test.ts", name: "of two phones that change one record at once" },
    run: ["--faults", "terminate backends,kill worker", "--phones", "48", "--hot", "4"],
  },
  {
    name: "the quarantine",
    file: "src/replay/after-unclear.ts",
    find: "return forMs > 0 ? {",
    replace: "return forMs > Infinity ? {",
    test: { file: "test/replay/resolvers.test.ts", name: "a record that the search does not show yet" },
    run: ["--faults", "lose all jobs", "--rate", "0.25"],
  },
  {
    name: "the lock order",
    file: "src/records/record.ts",
    find: "order by r.entity, r.server_id for update`",
    replace: "order by md5(r.server_id || pg_backend_pid()) for update`",
    test: { file: "test/replay/commits.test.ts", name: "locks are taken in one order" },
    run: ["--faults", "lose all jobs", "--phones", "48", "--hot", "4"],
  },
  {
    name: "the rule that only the same audience supersedes",
    file: "src/change-feed/prune.ts",
    find: "when 'revoke' then ${isInAudience}",
    replace: "when 'revoke' then r.feed_position > b.position",
    test: { file: "test/feed/pruning.test.ts", name: "the readers of A and of B each get theirs" },
  },
  {
    name: "the stay of revokes",
    file: "src/change-feed/prune.ts",
    find: "when 'revoke' then ${isInAudience}",
    replace: "when 'revoke' then true",
    test: { file: "test/feed/pruning.test.ts", name: "within the horizon who comes late gets the revoke" },
  },
  {
    name: "the stay of live records",
    file: "src/change-feed/prune.ts",
    find: "when 'record' then r.deleted",
    replace: "when 'record' then true",
    test: { file: "test/feed/pruning.test.ts", name: "a round prunes what is superseded" },
  },
  {
    name: "the look at what others changed together with us",
    file: "src/replay/settle.ts",
    find: "return isSameRecord(data, record.data, config);",
    replace: "return true;",
    test: {
      file: "test/inbound/echo.test.ts",
      name: "an update that somebody else's change came after, and was seen with",
    },
  },
  {
    name: "the record before its outcome",
    file: "src/change-feed/read.ts",
    find: "if (moved) putBeforeOutcome(changes, position, recordKey(moved), toRecordChange(moved, reader));",
    replace: "",
    test: { file: "test/feed/stream-pruning.test.ts", name: "to one who reads alone with a limit of 1" },
  },
  {
    name: "the record before its outcome, for those who read together",
    file: "src/change-feed/read-together.ts",
    find: "if (moved !== undefined && movedChange) putBeforeOutcome(",
    replace: "if (moved === '' && movedChange) putBeforeOutcome(",
    test: { file: "test/feed/stream-pruning.test.ts", name: "to one who reads together with a limit of 1" },
  },
  {
    name: "the record and its outcome in one page",
    file: "src/change-feed/follow.ts",
    find: "page.changes[limit - 1]?.isBeforeOutcome ? limit + 1 : limit",
    replace: "limit",
    test: { file: "test/feed/stream-pruning.test.ts", name: "to one who reads together with a limit of 1" },
  },
  {
    name: "the record and its outcome in one write",
    file: "src/change-feed/stream.ts",
    find: " && !isBeforeOutcome) return",
    replace: ") return",
    test: { file: "test/feed/stream-pruning.test.ts", name: "so large that each fills a write" },
  },
  {
    name: "the horizon of cursors",
    file: "src/change-feed/pull.ts",
    find: "if (Math.max(position, begunAt) < head.horizon)",
    replace: "if (position < 0)",
    test: { file: "test/feed/pruning.test.ts", name: "a cursor from before the horizon is answered 410" },
  },
];
