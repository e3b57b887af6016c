import { Type } from "typebox";

import { patterns } from "./patterns.ts";
import { closed, integer, text } from "./schema-parts.ts";

const pushBudget = (platform: string, standard: number) =>
  integer(`Pushes to ${platform} within an hour.`, { default: standard, minimum: 1, maximum: 60 });

export type FcmConfig = Type.Static<typeof FcmConfig>;
export const FcmConfig = Type.Object(
  {
    projectId: text("The Firebase project.", patterns.fcmProject),
    clientEmail: text("The service account's `client_email`."),
    privateKey: text(
      "The service account's `private_key` (PEM), as ${VAR}; line breaks may be written as \\n.",
    ),
    tokenUri: text("Where access tokens are issued.", { default: "https://oauth2.googleapis.com/token" }),
    baseUrl: text("Where messages are sent.", { default: "https://fcm.googleapis.com" }),
    androidPriority: Type.Enum(["normal", "high"], {
      default: "normal",
      description:
        "high wakes a dozing device; Android takes it back from apps that show their user nothing for it.",
    }),
  },
  { ...closed, description: "Firebase Cloud Messaging (HTTP v1), for Android and iOS." },
);

export type WebhookConfig = Type.Static<typeof WebhookConfig>;
export const WebhookConfig = Type.Object(
  {
    url: text("Where pushes are posted: an absolute http or https URL."),
    secret: text(
      "The secret that signs them, `whsec_` and base64, as ${VAR}; several separated by commas sign all.",
    ),
  },
  {
    ...closed,
    description: "A service of your own that wakes apps, called with a Standard Webhooks signature.",
  },
);

export type PushConfig = Type.Static<typeof PushConfig>;
export const PushConfig = Type.Object(
  {
    fcm: Type.Optional(FcmConfig),
    webhook: Type.Optional(WebhookConfig),
    delayMs: integer("A client that reads within this time of a change is not woken for it.", {
      default: 5_000,
      minimum: 100,
      maximum: 3_600_000,
    }),
    reminderMs: integer(
      "A client that was woken and has not read is woken again after this time; each time after twice as long, up to " +
        "32 times.",
      { default: 21_600_000, minimum: 1_000, maximum: 604_800_000 },
    ),
    timeoutMs: integer("How long one call of a push service may take.", {
      default: 10_000,
      minimum: 100,
      maximum: 60_000,
    }),
    budget: Type.Object(
      {
        ios: pushBudget("an iOS device", 2),
        android: pushBudget("an Android device", 10),
        other: pushBudget("a client of neither", 10),
      },
      { ...closed, default: {}, description: "How often one client is woken at most." },
    ),
  },
  { ...closed, description: "How suspended apps are woken when there is something for them to read." },
);
