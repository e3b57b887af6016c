import type { Transaction } from "kysely";

import { readHead } from "../change-feed/head.ts";
import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import { backoffMs } from "../replay/backoff.ts";
import { BreakerOpen, UpstreamError } from "../upstream/connector.ts";
import type { ObservedRecord } from "../upstream/observed.ts";
import { isUsableName } from "../upstream/usable.ts";
import type { Seen } from "./compare.ts";
import { putOffLooks, readDueLooks, settleLooks, writeLooks, type Look } from "./look.ts";
import { concludeRound, keepPage, putOffRound, takeRound, type Concluded, type Round } from "./round.ts";
import { takeUp, type TakenUp, type TakeUpDeps } from "./take-up.ts";

export interface AskDeps extends TakeUpDeps {
  /** The entities whose records can be listed; none when the upstream is not polled. */
  listed: readonly string[];
  signal: AbortSignal;
  tell: Tell;
}

/** What is to be known of what was asked. */
export interface Tell {
  taken: (taken: TakenUp) => void;
  concluded: (round: Round, concluded: Concluded) => void;
  /** An answer that did not come, or was of no use. */
  failed: (what: { entity: string; error: UpstreamError; dueInMs: number }) => void;
}

/** Reads the records whose looks are due. @returns whether there were any. */
export async function answerLooks(deps: AskDeps): Promise<boolean> {
  const { db, claim, upstream } = deps;
  // Mutations that are replayed meanwhile find a place.
  const limit = Math.max(1, Math.floor(upstream.config.concurrency / 2));
  const { looks, askedAt } = await inTenant(db, claim.tenantId, async (trx) => {
    const [head, due] = await Promise.all([readHead(trx, claim.tenantId), readDueLooks(trx, claim, limit)]);
    return { looks: due, askedAt: head.position };
  });
  if (looks.length === 0) return false;
  const answers = await Promise.all(looks.map(async (look) => await answerOf(deps, look)));
  const seen = answers.flatMap((answer) => ("seen" in answer ? answer.seen : []));
  const later = answers.flatMap((answer) => ("inMs" in answer ? answer : []));
  const settled = answers.flatMap((answer) => ("inMs" in answer ? [] : answer.look));
  const taken = await takeUp(deps, seen, askedAt, async (trx) => {
    await Promise.all([settleLooks(trx, claim, settled), putOffLooks(trx, claim, later)]);
  });
  deps.tell.taken(taken);
  return true;
}

type Answer = { look: Look } | { look: Look; seen: Seen } | { look: Look; inMs: number };

/** An entity that is no longer configured has nothing to tell. */
async function answerOf({ upstream, signal, tell }: AskDeps, look: Look): Promise<Answer> {
  const { entity, serverId, failures, waited } = look;
  if (!upstream.entity(entity)) return { look };
  try {
    const found = await upstream.observe({ entity, id: serverId, signal });
    return { look, seen: { entity, serverId, found: found && storable(found), wasRead: true, waited } };
  } catch (error) {
    if (signal.aborted || !(error instanceof UpstreamError)) throw error;
    const { retryAfterMs } = error;
    const dueInMs = Math.max(pauseMsMin, backoffMs(failures + 1, upstream.config.retry, { retryAfterMs }));
    // What the breaker keeps back, the log has said once.
    if (!(error instanceof BreakerOpen)) tell.failed({ entity, error, dueInMs });
    return { look, inMs: dueInMs };
  }
}

const pauseMsMin = 100;

/** Reads one page of the round that is due, or concludes it. @returns whether there was one. */
export async function askForPage(deps: AskDeps): Promise<boolean> {
  const { claim, upstream, leaseMs, listed } = deps;
  const listOf = (entity: string) => upstream.entity(entity)?.list;
  const pollable = new Set(listed.filter((entity) => listOf(entity)?.since !== undefined));
  const tracked = new Set(listed.filter((entity) => listOf(entity)?.changes));
  const round = await takeRound(deps.db, claim, { entities: listed, pollable, tracked, leaseMs });
  if (!round) return false;
  if (round.isListed) {
    await conclude(deps, round, round.changesPlace !== undefined || pollable.has(round.entity));
    return true;
  }
  try {
    await readPage(deps, round);
  } catch (error) {
    if (deps.signal.aborted || !(error instanceof UpstreamError)) throw error;
    const { retryAfterMs } = error;
    const dueInMs = Math.max(
      pauseMsMin,
      backoffMs(round.failures + 1, upstream.config.retry, { retryAfterMs }),
    );
    if (!(error instanceof BreakerOpen)) deps.tell.failed({ entity: round.entity, error, dueInMs });
    const isAnew = round.nextPage !== undefined && error.disposition !== "retry";
    await putOffRound(deps.db, claim, round, {
      inMs: dueInMs,
      isAnew,
      isLost: hasLostTrack(round, error),
      leaseMs,
    });
  }
  return true;
}

/** Whether the upstream no longer knows where it was to be asked for changes; 410 says so, and not every service says 410. */
function hasLostTrack({ kind, changesPlace, failures }: Round, error: UpstreamError): boolean {
  if (kind !== "poll" || changesPlace === undefined || error.systemic || error.status === undefined)
    return false;
  const isRefused = error.status === 404 || error.status === 410 || error.disposition !== "retry";
  return isRefused || failures + 1 >= failuresMax;
}

/** So many times a service may fail on a question for changes. */
const failuresMax = 5;

async function readPage(deps: AskDeps, round: Round): Promise<void> {
  const { db, claim, upstream, signal } = deps;
  const { entity, kind, nextPage, changedUntil, changesPlace } = round;
  const { overlapMs } = upstream.config.poll!;
  const { position } = await inTenant(db, claim.tenantId, async (trx) => await readHead(trx, claim.tenantId));
  const isOfTime = kind === "poll" && changesPlace === undefined;
  const since = isOfTime && changedUntil ? new Date(changedUntil.getTime() - overlapMs) : undefined;
  const after = nextPage ?? (kind === "poll" ? changesPlace : undefined);
  const page = await upstream.observePage({ entity, after, since, signal });
  const records = page.records.filter(({ id }) => isUsableName(id));
  const seen = records.map((found): Seen => ({
    entity,
    serverId: found.id,
    found: storable(found),
    wasRead: false,
  }));
  // A change only names its record, and may be known already: it is looked at like one that an event has named.
  const looks = page.changed
    .filter((id) => isUsableName(id))
    .map((serverId) => ({ entity, serverId, inMs: 0 }));
  const kept = {
    serverIds: [...records.map(({ id }) => id), ...looks.map(({ serverId }) => serverId)],
    next: page.next,
    changedUntil: latest(records),
    // What has changed of those that changed since a time is not all that has changed.
    changesPlace: isOfTime ? undefined : page.changes,
  };
  const keep = async (trx: Transaction<Database>) =>
    await Promise.all([writeLooks(trx, claim, looks), keepPage(trx, claim, round, kept)]);
  deps.tell.taken(await takeUp(deps, seen, position, keep));
}

async function conclude(
  { db, claim, upstream, leaseMs, tell }: AskDeps,
  round: Round,
  isPollable: boolean,
): Promise<void> {
  const { everyMs, sweepEveryMs, missingShareMax } = upstream.config.poll!;
  const concluded = await concludeRound(db, claim, round, {
    leaseMs,
    everyMs,
    sweepEveryMs: isPollable ? sweepEveryMs : everyMs,
    missingShareMax,
    tellsTime: upstream.entity(round.entity)?.list?.updatedAt !== undefined,
  });
  tell.concluded(round, concluded);
}

function latest(records: readonly ObservedRecord[]): Date | undefined {
  const times = records.flatMap(({ changedAt }) => (changedAt ? [changedAt.getTime()] : []));
  return times.length === 0 ? undefined : new Date(times.reduce((a, b) => Math.max(a, b)));
}

/** Nobody's ID has a NUL or half a character, and Postgres takes neither. */
function storable(found: ObservedRecord): ObservedRecord {
  return found.version !== undefined && !isUsableName(found.version)
    ? { ...found, version: undefined }
    : found;
}
