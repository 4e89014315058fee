import { isolationOf } from "./settings.ts";

/** Whether gVisor isolates the Pods of this project's tests. */
export const IS_GVISOR = isolationOf() === "gVisor";

/** The error of a write to a read-only root file system, by a user who is not root. */
export const READ_ONLY = IS_GVISOR ? "Permission denied" : "Read-only file system";
