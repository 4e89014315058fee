import { describePairs } from "./pairs.ts";

describePairs("Operator");
