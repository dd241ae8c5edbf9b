/** What k6 has and its types do not name. */
declare const console: Record<'log' | 'info' | 'warn' | 'error', (message: string) => void>;
declare const crypto: { randomUUID(): string };
