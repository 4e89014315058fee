import { CLAIMING } from "./claiming.ts";
import { DELIVERING } from "./delivering.ts";
import { KEEPING } from "./keeping.ts";
import { type Mutation, mutationsOf } from "./mutation.ts";
import { SESSION_PODS_MUTATIONS } from "./pods.ts";
import { ROOMS } from "./rooms.ts";
import { SLEEPING_MUTATIONS } from "./sleeping.ts";
import { VOLUME_MUTATIONS } from "./volumes.ts";

/** Every mutation. */
export const MUTATIONS: readonly Mutation[] = mutationsOf([
  ...CLAIMING,
  ...DELIVERING,
  ...KEEPING,
  ...SESSION_PODS_MUTATIONS,
  ...VOLUME_MUTATIONS,
  ...ROOMS,
  ...SLEEPING_MUTATIONS,
]);
