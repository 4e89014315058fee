/** Where deliveries are posted. */
export const WEBHOOK_PATH = "/webhook";
