import { setPriority } from "node:os";

/** For tests that only compute: real nodes and leases, whose deadlines don't wait, go first on a busy machine. */
const NICE = 10;

setPriority(NICE);
