use super::lab;
