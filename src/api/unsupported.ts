import type { EnvironmentSpec } from "./environment.ts";

/** A field that asks for something that is not built yet. */
export interface UnsupportedField {
  /** Path from the object's root. */
  readonly field: string;
  readonly value: string;
  /** One sentence with the mend, for the condition. */
  readonly message: string;
}

interface Row {
  readonly field: string;
  /** The value asked for when it is one that is not built, else undefined. */
  readonly asked: (spec: EnvironmentSpec) => string | undefined;
  readonly mend: string;
}

const only = (value: string | undefined, unbuilt: string) => (value === unbuilt ? value : undefined);

/**
 * What the schema takes and this version does not do. It is refused with a condition, never ignored: whoever builds
 * one deletes its row.
 */
const UNSUPPORTED: readonly Row[] = [
  {
    field: "spec.sessions.disruption",
    asked: ({ sessions }) => only(sessions?.disruption, "Protect"),
    mend: "use Allow",
  },
];

/** Every field of a spec that this version does not serve; empty when all is well. */
export function unsupportedFields(spec: EnvironmentSpec): UnsupportedField[] {
  return UNSUPPORTED.flatMap(({ field, asked, mend }) => {
    const value = asked(spec);
    if (value === undefined) return [];
    const what = value === "set" ? field : `${field}: ${value}`;
    return [{ field, value, message: `${what} is not supported by this version of Berth: ${mend}` }];
  });
}
