import { z } from "zod";
import { isRecord } from "../core/json.ts";

/** A structural schema of a CRD: the part of OpenAPI v3 that the API server accepts there, as plain JSON. */
export interface StructuralSchema {
  type?: string;
  format?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  maxProperties?: number;
  required?: string[];
  properties?: Record<string, StructuralSchema>;
  items?: StructuralSchema;
  additionalProperties?: StructuralSchema;
  "x-kubernetes-preserve-unknown-fields"?: true;
  "x-kubernetes-list-type"?: string;
  "x-kubernetes-list-map-keys"?: string[];
  "x-kubernetes-validations"?: { rule: string; message: string; fieldPath?: string }[];
}

const INT32_MIN = -(2 ** 31);
const INT32_MAX = 2 ** 31 - 1;

/** Keywords in reading order: description, type, bounds, contents. */
const ORDER = [
  "description",
  "type",
  "format",
  "default",
  "enum",
  "pattern",
  "minimum",
  "maximum",
  "minLength",
  "maxLength",
  "minItems",
  "maxItems",
  "maxProperties",
  "required",
  "x-kubernetes-preserve-unknown-fields",
  "x-kubernetes-list-type",
  "x-kubernetes-list-map-keys",
  "x-kubernetes-validations",
  "properties",
  "items",
  "additionalProperties",
] as const;

/**
 * Returns the structural schema of a zod schema's input, so that fields with a default are not required.
 * @throws Error with the path for a keyword that a CRD cannot hold, which the API server would refuse.
 */
export function toStructuralSchema(schema: z.ZodType): StructuralSchema {
  const json: unknown = z.toJSONSchema(schema, { io: "input", target: "openapi-3.0", unrepresentable: "any" });
  return structural(json, "");
}

function structural(json: unknown, path: string): StructuralSchema {
  if (!isRecord(json)) throw new Error(`${path || "."}: not a schema`);
  const out: Record<string, unknown> = { ...json };
  // The API server owns metadata: a CRD may only declare it as an object.
  if (out.opaque === true) return { type: "object" };
  closeOrPreserve(out);
  if (out.type === "integer") sizeInteger(out);
  if (isRecord(out.properties)) {
    out.properties = Object.fromEntries(
      Object.entries(out.properties).map(([name, value]) => [name, structural(value, `${path}.${name}`)]),
    );
  }
  if (out.items !== undefined) out.items = structural(out.items, `${path}[]`);
  if (out.additionalProperties !== undefined)
    out.additionalProperties = structural(out.additionalProperties, `${path}.*`);
  const unknown = Object.keys(out).filter((key) => !(ORDER as readonly string[]).includes(key));
  if (unknown.length > 0) throw new Error(`${path || "."}: no place in a CRD for ${unknown.join(", ")}`);
  return Object.fromEntries(ORDER.filter((key) => key in out).map((key) => [key, out[key]]));
}

/** A structural schema prunes unknown fields by default, so `false` is left out. "Anything" has its own keyword. */
function closeOrPreserve(out: Record<string, unknown>): void {
  const extra = out.additionalProperties;
  if (extra === false) delete out.additionalProperties;
  if (isRecord(extra) && Object.keys(extra).length === 0) {
    delete out.additionalProperties;
    out["x-kubernetes-preserve-unknown-fields"] = true;
  }
}

/** zod writes the bounds of integer types as limits; a CRD uses the format. */
function sizeInteger(out: Record<string, unknown>): void {
  const { minimum, maximum } = out;
  out.format = typeof maximum === "number" && maximum <= INT32_MAX ? "int32" : "int64";
  if (minimum === INT32_MIN || minimum === Number.MIN_SAFE_INTEGER) delete out.minimum;
  if (maximum === INT32_MAX || maximum === Number.MAX_SAFE_INTEGER) delete out.maximum;
}
