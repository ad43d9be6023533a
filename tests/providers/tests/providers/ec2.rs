//! `power-ec2`.
