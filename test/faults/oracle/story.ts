import type { World } from "../world/world.ts";
import type { Queued } from "../phone.ts";
import type { Effect, Evidence } from "./evidence.ts";

const linesMax = 60;

/** Everything that is known of one mutation: what was sent, what the upstream saw, what stands in the database, the log. */
export function storyOf(queued: Queued, evidence: Evidence, { log }: Pick<World, "log">): string {
  const { body, phone, record, marker } = queued;
  const calls = evidence.requests.filter((line) => line.marker === marker);
  const effects = evidence.effects.filter(({ causes }) => causes.includes(queued));
  const others = evidence.effects.filter(
    (effect) => !effects.includes(effect) && effect.causes.some((cause) => cause.record === record),
  );
  const lane = evidence.lanes.find(({ client_id: clientId }) => clientId === phone.clientId);
  const lines = log
    .filter(({ line }) => line.includes(body.id) || isOfLane(line, phone.clientId))
    .slice(-linesMax);
  return [
    `  phone ${phone.index} (${phone.clientId}, ${phone.user}) ${JSON.stringify(body)}`,
    ...calls.map((line) => `  journal ${stamp(line.at)} ${JSON.stringify(line)}`),
    ...effects.map((effect) => `  journal ${told(effect)}`),
    ...others.slice(-10).map((effect) => `  same record ${told(effect)}`),
    `  mutation_key ${JSON.stringify(evidence.keys.get(body.id))}`,
    `  delivery ${JSON.stringify(evidence.deliveries.get(body.id))}`,
    `  id_map ${JSON.stringify(evidence.idMap.find((row) => row.temp_id === record.tempId))}`,
    `  lane ${JSON.stringify(lane)}`,
    ...lines.map(({ process, at, line }) => `  ${process} ${stamp(at)} ${line}`),
  ].join("\n");
}

function told(effect: Effect): string {
  return `${stamp(effect.at)} ${JSON.stringify({ ...effect, causes: undefined })}`;
}

function isOfLane(line: string, clientId: string): boolean {
  return line.includes(`"laneId":"${clientId}"`);
}

function stamp(at: number): string {
  return new Date(at).toISOString().slice(11, 23);
}
