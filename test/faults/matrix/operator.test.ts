import { describeMatrix } from "./matrix.ts";

describeMatrix("Operator");
