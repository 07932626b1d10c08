# SPDX-License-Identifier: Apache-2.0
"""What every other room stands on: files, locks, digests, processes, threads, the machine."""
