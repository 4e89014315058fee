import { describePairs } from "./pairs.ts";

describePairs("Worker");
