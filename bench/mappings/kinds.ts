import type { UpcastStep } from "../../src/platform/config/entity-schema.ts";

/** What an entity's configuration says of its data's shape. */
export interface MappingKind {
  name: string;
  entity: {
    toUpstream?: string;
    fromUpstream?: string;
    schema?: number;
    schemaDefault?: number;
    upcast?: UpcastStep[];
  };
}

const rename = {
  toUpstream:
    '{ "phone": phone, "n": n, "Mentor": mentor, "Dato": date, "Minutter": minutes, "Type": kind, "Sted": place, "Notat": note }',
  fromUpstream:
    '{ "phone": phone, "n": n, "mentor": Mentor, "date": Dato, "minutes": Minutter, "kind": Type, "place": Sted, "note": Notat }',
};

/** Updates carry some fields only, so that what is made of a field is made only where it is there. */
const typical = {
  toUpstream: `(
    $kinds := { "conversation": 1, "walk": 2, "phone": 3, "group": 4 };
    $regions := { "Oslo": "03", "Bergen": "46", "Tromsø": "55" };
    $day := date ? $toMillis(date);
    {
      "phone": phone,
      "n": n,
      "Mentor": mentor ? { "Id": $number(mentor), "Ref": "M-" & $pad(mentor, -8, "0") },
      "Dato": $day ? $fromMillis($day, "[D01].[M01].[Y0001]"),
      "Uke": $day ? $fromMillis($day, "[X0001]-[W01]"),
      "Maaned": $day ? $number($fromMillis($day, "[M]")),
      "Minutter": minutes,
      "Timer": minutes ? $round(minutes / 60, 2),
      "TypeKode": kind ? $lookup($kinds, kind),
      "Type": kind ? $uppercase($substring(kind, 0, 1)) & $substringAfter(kind, $substring(kind, 0, 1)),
      "Sted": place ? $trim(place),
      "Region": place ? $lookup($regions, "Oslo"),
      "Notat": note ? $substring(note, 0, 200),
      "Emner": note ? $split(note, "; "),
      "Kilde": "app"
    }
  )`,
  fromUpstream: `(
    $kinds := { "1": "conversation", "2": "walk", "3": "phone", "4": "group" };
    {
      "phone": phone,
      "n": n,
      "mentor": Mentor ? $string(Mentor.Id),
      "date": Dato ? $substring(Dato, 6, 4) & "-" & $substring(Dato, 3, 2) & "-" & $substring(Dato, 0, 2),
      "minutes": Minutter,
      "kind": TypeKode ? $lookup($kinds, $string(TypeKode)),
      "place": Sted,
      "note": Notat
    }
  )`,
};

const upcasters = {
  schema: 4,
  schemaDefault: 1,
  upcast: [
    {
      from: 1,
      to: 2,
      name: "kind is a type",
      data: '$exists(kind) ? $ ~> |$|{ "type": kind }, "kind"| : $',
    },
    {
      from: 2,
      to: 3,
      name: "minutes are seconds",
      data: '$exists(minutes) ? $ ~> |$|{ "seconds": minutes = null ? null : minutes * 60 }, "minutes"| : $',
    },
    {
      from: 3,
      to: 4,
      name: "a place has a name",
      data: '$exists(place) ? $ ~> |$|{ "place": { "name": place } }| : $',
    },
  ],
};

export const mappingKinds: MappingKind[] = [
  { name: "none", entity: {} },
  { name: "rename", entity: rename },
  { name: "typical", entity: typical },
  { name: "upcasters", entity: upcasters },
];
