import { isolationOf } from "./settings.ts";

/** Whether gVisor isolates the Pods of this project's tests. */
export const IS_GVISOR = isolationOf() === "gVisor";

/** The exit code of a container that exceeded its memory limit. With gVisor, all containers of the Pod end. */
export const OOM_EXIT_CODE = IS_GVISOR ? 128 : 137;

/** The error of a write to a read-only root file system, by a user who is not root. */
export const READ_ONLY = IS_GVISOR ? "Permission denied" : "Read-only file system";
