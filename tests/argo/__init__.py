"""Exports to Argo Workflows.

`schema.json.gz` is api/jsonschema/schema.json of https://github.com/argoproj/argo-workflows at
v4.1.2 (2026-08-21; SHA-256 of the file
3f84c5722c48a5aa815fe69119a9375fc3635114f8046da20ede55a8596529f5), under the Apache License 2.0.
"""
