"""qrexec policy: who may call what, where (qrexec-policy.md). Pure: reads no file, asks nobody."""
